#include "model/safetensors.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "test/files.h"
#include "test/test.h"

using namespace foretoken;
using namespace foretoken::test;

namespace {

/// The message that opening a file of these bytes is refused with, as InvalidCheckpoint; empty if it is accepted.
std::string refusal_of_bytes(const std::string& bytes) {
  const TemporaryDirectory scratch;
  write_file(scratch / "x.safetensors", bytes);
  try {
    SafetensorsFile file(scratch / "x.safetensors");
    return "";
  } catch (const Error& error) {
    if (error.code() != ErrorCode::InvalidCheckpoint) return "wrong code";
    return error.what();
  }
}

std::string refusal(const std::string& header, std::size_t data_bytes = 8) {
  return refusal_of_bytes(safetensors_bytes(header, std::string(data_bytes, '\0')));
}

template <typename T>
std::string raw(std::initializer_list<T> values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  std::memcpy(bytes.data(), std::data(values), bytes.size());
  return bytes;
}

void write_shards(const std::filesystem::path& directory, const std::string& index) {
  write_file(directory / "a.safetensors",
             safetensors_bytes(R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "abcd"));
  write_file(directory / "b.safetensors",
             safetensors_bytes(R"({"y":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "efgh"));
  write_file(directory / "model.safetensors.index.json", index);
}

std::string index_refusal(const std::string& index) {
  const TemporaryDirectory scratch;
  write_shards(scratch.path(), index);
  return message_of([&] { TensorFiles files(scratch.path()); });
}

}  // namespace

TEST("safetensors: tensors come in the order of their bytes, with metadata, whatever the header's order") {
  const TemporaryDirectory scratch;
  write_file(
      scratch / "x.safetensors",
      safetensors_bytes(
          R"({"late":{"dtype":"F32","shape":[1],"data_offsets":[4,8]},"__metadata__":{"format":"pt"},)"
          R"("early":{"shape":[2,1],"data_offsets":[0,4],"dtype":"BF16"},"none":{"dtype":"F32","shape":[0,7],"data_offsets":[4,4]}}  )",
          raw<BFloat16>({BFloat16(1.0f), BFloat16(-2.0f)}) + raw({0.25f})));
  const SafetensorsFile file(scratch / "x.safetensors");
  CHECK_EQ(file.tensors().size(), 3u);
  CHECK_EQ(file.tensors()[0].name, "early");
  CHECK_EQ(file.tensors()[1].name, "none");
  CHECK_EQ(file.tensors()[2].name, "late");
  CHECK(file.tensors()[0].shape == std::vector<std::int64_t>({2, 1}));
  CHECK_EQ(file.metadata().at("format"), "pt");
  float values[2];
  CHECK(read_elements(file.tensors()[0], 0, 2, values));
  CHECK(values[0] == 1.0f && values[1] == -2.0f);
  CHECK(read_elements(file.tensors()[2], 0, 1, values));
  CHECK_EQ(values[0], 0.25f);
}

TEST("safetensors: float64, float32, float16 and bfloat16 are read as float32 and as bfloat16, from any alignment") {
  const TemporaryDirectory scratch;
  const std::string data = "!" + raw({0.1, -3.0}) + raw({0.1f, -3.0f}) + raw({Float16(0.1f), Float16(-3.0f)}) +
                           raw({BFloat16(0.1f), BFloat16(-3.0f)});
  write_file(
      scratch / "x.safetensors",
      safetensors_bytes(
          R"({"pad":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"F64","shape":[2],"data_offsets":[1,17]},)"
          R"("b":{"dtype":"F32","shape":[2],"data_offsets":[17,25]},"c":{"dtype":"F16","shape":[2],"data_offsets":[25,29]},)"
          R"("d":{"dtype":"BF16","shape":[2],"data_offsets":[29,33]}})",
          data));
  const SafetensorsFile file(scratch / "x.safetensors");
  const float expected[] = {0.0f, 0.1f, 0.1f, static_cast<float>(Float16(0.1f)), static_cast<float>(BFloat16(0.1f))};
  CHECK(!file.tensors()[0].dtype);
  for (std::size_t i = 1; i < 5; ++i) {
    float wide[2];
    BFloat16 narrow[2];
    CHECK(read_elements(file.tensors()[i], 0, 2, wide));
    CHECK(read_elements(file.tensors()[i], 0, 2, narrow));
    CHECK(wide[0] == expected[i] && wide[1] == -3.0f);
    CHECK(narrow[0].bits == BFloat16(expected[i]).bits);
    CHECK(read_elements(file.tensors()[i], 1, 1, wide) && wide[0] == -3.0f);
  }
}

TEST("safetensors: reading reports NaN, infinity and what rounds to it") {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  const float largest = std::numeric_limits<float>::max();
  const TemporaryDirectory scratch;
  write_file(scratch / "x.safetensors", safetensors_bytes(R"({"x":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})",
                                                          raw({1.0f, largest, infinity, nan})));
  const SafetensorsFile file(scratch / "x.safetensors");
  float wide;
  BFloat16 narrow;
  CHECK(read_elements(file.tensors()[0], 0, 1, &wide));
  CHECK(read_elements(file.tensors()[0], 1, 1, &wide));
  CHECK(!read_elements(file.tensors()[0], 1, 1, &narrow));
  CHECK(!read_elements(file.tensors()[0], 2, 1, &wide));
  CHECK(!read_elements(file.tensors()[0], 3, 1, &wide));
}

TEST("safetensors: headers that the reference implementation refuses are refused") {
  CHECK(refusal(R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})").empty());
  CHECK(refusal("{}", 0).empty());

  CHECK(contains(refusal_of_bytes(""), "8 of length"));
  CHECK(contains(refusal_of_bytes("1234567"), "8 of length"));
  CHECK(contains(refusal_of_bytes(std::string("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10)), "claims"));
  CHECK(contains(refusal_of_bytes(std::string("\x01\xe1\xf5\x05\0\0\0\0{}", 10)), "at most 100,000,000"));
  CHECK(contains(refusal_of_bytes(std::string("\x03\0\0\0\0\0\0\0{}", 10)), "claims"));
  CHECK(contains(refusal(" {}", 0), "does not start with '{'"));
  CHECK(contains(refusal("{", 0), "x.safetensors:1:2"));
  CHECK(contains(refusal("{}"), "cover 0 bytes"));
  CHECK(contains(refusal(R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})"), "truncated or damaged"));
  CHECK(contains(refusal(R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})"), "belong to no tensor"));
  CHECK(contains(refusal(R"({"x":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})"), "outside"));
  CHECK(contains(refusal(R"({"x":{"dtype":"F32","shape":[0],"data_offsets":[8,4]}})"), "outside"));
  CHECK(contains(refusal(R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[-4,4]}})"), "integers >= 0"));
  CHECK(contains(
      refusal(
          R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"y":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})"),
      "overlaps"));
  CHECK(contains(refusal(R"({"x":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})"), "need 12 bytes"));
  CHECK(contains(refusal(R"({"x":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})"), "integers >= 0"));
  CHECK(contains(refusal(R"({"x":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})"), "integers >= 0"));
  CHECK(
      contains(refusal(R"({"x":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}})"), "overflows"));
  CHECK(contains(
      refusal(
          R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})"),
      "occurs twice"));
  CHECK(contains(refusal(R"({"x":{"dtype":"F32","shape":[2]}})"), "must have dtype"));
  CHECK(
      contains(refusal(R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"scale":2}})"), "unknown key 'scale'"));
  CHECK(contains(refusal(R"({"x":[]})"), "must be an object"));
  CHECK(contains(refusal(R"({"__metadata__":{"format":1}})", 0), "__metadata__.format"));
}

TEST("safetensors: a dtype that nobody needs is carried, its size is checked where it is known") {
  CHECK(refusal(R"({"x":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}})").empty());
  CHECK(refusal(R"({"x":{"dtype":"F4","shape":[16],"data_offsets":[0,8]}})").empty());
  CHECK(refusal(R"({"x":{"dtype":"POSIT","shape":[16],"data_offsets":[0,8]}})").empty());
  CHECK(!refusal(R"({"x":{"dtype":"I32","shape":[1],"data_offsets":[0,8]}})").empty());
  CHECK(!refusal(R"({"x":{"dtype":"F4","shape":[15],"data_offsets":[0,8]}})").empty());
}

TEST("safetensors: index and shards must name the same tensors, and shards lie in the directory") {
  CHECK(
      index_refusal(R"({"weight_map":{"x":"a.safetensors","y":"b.safetensors"},"metadata":{"total_size":8}})").empty());
  CHECK(contains(index_refusal(R"({"weight_map":{"x":"b.safetensors","y":"a.safetensors"}})"), "belongs into"));
  CHECK(contains(index_refusal(R"({"weight_map":{"x":"a.safetensors","y":"b.safetensors","z":"b.safetensors"}})"),
                 "\"z\" is missing"));
  CHECK(contains(index_refusal(R"({"weight_map":{"y":"b.safetensors","z":"a.safetensors"}})"), "\"x\" is not in"));
  CHECK(contains(index_refusal(R"({"weight_map":{"x":"a.safetensors","y":"c.safetensors"}})"), "c.safetensors"));
  for (const char* bad : {"../a.safetensors", "/etc/a.safetensors", "sub/a.safetensors", "..\\\\a.safetensors", "a.bin",
                          "", "..", "a.safetensors\\u0000.safetensors"}) {
    CHECK(contains(index_refusal(R"({"weight_map":{"x":")" + std::string(bad) + R"("}})"), "in the same directory"));
  }
  CHECK(contains(index_refusal(R"({"weight_map":{"x":3}})"), "must name a file"));
  CHECK(contains(index_refusal(R"({})"), "weight_map"));
  CHECK(contains(index_refusal(R"({"weight_map":{"x":"a.safetensors","x":"a.safetensors"}})"), "occurs twice"));
}

TEST("safetensors: what is written is read back, in shards no larger than asked, with aligned data") {
  const std::vector<TensorToWrite> tensors = {{"first", {3, 5}}, {"second", {7}}, {"third", {2, 2}}};
  for (const DType dtype : {DType::Float32, DType::BFloat16, DType::Float16}) {
    for (const std::int64_t most : {std::int64_t{1}, std::int64_t{90}, std::int64_t{1} << 30}) {
      const TemporaryDirectory scratch;
      AtomicDirectory directory(scratch / "out", [](const std::string&) { return true; });
      write_tensor_files(directory, tensors, dtype, most,
                         [&](std::size_t index, std::int64_t begin, std::int64_t count, float* out) {
                           const std::int64_t cols = tensors[index].shape.back();
                           for (std::int64_t i = 0; i < count * cols; ++i)
                             out[i] = static_cast<float>(100 * index) + static_cast<float>(begin * cols + i);
                         });
      directory.commit();
      const TensorFiles files(scratch / "out");
      CHECK_EQ(files.tensors().size(), 3u);
      for (std::size_t t = 0; t < tensors.size(); ++t) {
        const StoredTensor& tensor = *files.find(tensors[t].name);
        CHECK(tensor.shape == tensors[t].shape && tensor.dtype == dtype);
        const auto count = static_cast<std::int64_t>(tensor.bytes / size_of(dtype));
        std::vector<float> values(static_cast<std::size_t>(count));
        CHECK(read_elements(tensor, 0, count, values.data()));
        for (std::size_t i = 0; i < values.size(); ++i) CHECK_EQ(values[i], static_cast<float>(100 * t + i));
      }
      std::size_t shards = 0;
      for (const auto& entry : std::filesystem::directory_iterator(scratch / "out")) {
        if (entry.path().extension() != ".safetensors") continue;
        ++shards;
        const SafetensorsFile file(entry.path());
        CHECK_EQ(file.metadata().at("format"), "pt");
        std::size_t bytes = 0;
        for (const StoredTensor& tensor : file.tensors()) bytes += tensor.bytes;
        CHECK(static_cast<std::int64_t>(bytes) <= most || file.tensors().size() == 1);
        CHECK_EQ((std::filesystem::file_size(entry.path()) - bytes) % 8, 0u);
      }
      CHECK_EQ(shards, most == 1 ? 3u : most == 90 && dtype == DType::Float32 ? 2u : 1u);
    }
  }
}

TEST("safetensors: a tensor larger than the buffer is written in pieces") {
  const TemporaryDirectory scratch;
  AtomicDirectory directory(scratch / "out", [](const std::string&) { return true; });
  std::int64_t calls = 0;
  const std::vector<TensorToWrite> tensors = {{"big", {5000, 512}}};
  write_tensor_files(directory, tensors, DType::BFloat16, 5'000'000'000,
                     [&](std::size_t, std::int64_t begin, std::int64_t count, float* out) {
                       ++calls;
                       for (std::int64_t i = 0; i < count * 512; ++i)
                         out[i] = static_cast<float>((begin * 512 + i) % 251);
                     });
  directory.commit();
  CHECK(calls > 1);
  const TensorFiles files(scratch / "out");
  std::vector<float> values(5000 * 512);
  CHECK(read_elements(*files.find("big"), 0, 5000 * 512, values.data()));
  for (std::size_t i = 0; i < values.size(); ++i) CHECK_EQ(values[i], static_cast<float>(i % 251));
}

TEST("safetensors: numbers that are not finite in the file's dtype are not written") {
  const TemporaryDirectory scratch;
  const auto write = [&](DType dtype, float value) {
    AtomicDirectory directory(scratch / "out", [](const std::string&) { return true; });
    write_tensor_files(directory, {{"x", {2}}}, dtype, 100, [&](std::size_t, std::int64_t, std::int64_t, float* out) {
      out[0] = 0.0f;
      out[1] = value;
    });
  };
  CHECK_FAILS(ErrorCode::NonFinite, write(DType::Float32, std::numeric_limits<float>::quiet_NaN()));
  CHECK_FAILS(ErrorCode::NonFinite, write(DType::Float16, 70000.0f));
  CHECK_FAILS(ErrorCode::NonFinite, write(DType::BFloat16, std::numeric_limits<float>::max()));
  CHECK_FAILS(ErrorCode::InvalidArgument, write(DType::Float64, 1.0f));
  write(DType::Float32, std::numeric_limits<float>::max());
}
