#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/json.h"
#include "model/safetensors.h"

namespace foretoken {

namespace {

constexpr std::int64_t chunk_elements = std::int64_t{1} << 20;  // 4 MB

std::int64_t rows_of(const TensorToWrite& tensor) { return tensor.shape.size() == 2 ? tensor.shape[0] : 1; }
std::int64_t cols_of(const TensorToWrite& tensor) { return tensor.shape.back(); }
std::int64_t bytes_of(const TensorToWrite& tensor, DType dtype) {
  return rows_of(tensor) * cols_of(tensor) * static_cast<std::int64_t>(size_of(dtype));
}

const char* file_dtype(DType dtype) {
  switch (dtype) {
    case DType::Float32: return "F32";
    case DType::BFloat16: return "BF16";
    case DType::Float16: return "F16";
    case DType::Float64: break;
  }
  fail(ErrorCode::InvalidArgument, "checkpoints are saved in float32, bfloat16 or float16, not in ", name_of(dtype));
}

/// Tensors [begin, end) go into one file.
struct Shard {
  std::size_t begin, end;
  std::string name;
};

std::vector<Shard> plan_shards(const std::vector<TensorToWrite>& tensors, DType dtype, std::int64_t max_shard_bytes) {
  std::vector<Shard> shards;
  std::int64_t filled = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::int64_t bytes = bytes_of(tensors[i], dtype);
    if (shards.empty() || filled + bytes > max_shard_bytes) {
      shards.push_back({i, i, ""});
      filled = 0;
    }
    filled += bytes;
    shards.back().end = i + 1;
  }
  for (std::size_t s = 0; s < shards.size(); ++s) {
    char name[64];
    std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", s + 1, shards.size());
    shards[s].name = shards.size() == 1 ? "model.safetensors" : name;
  }
  return shards;
}

/// The length and the JSON before the data, padded so that the data starts at a multiple of 8.
std::string header(const std::vector<TensorToWrite>& tensors, const Shard& shard, DType dtype) {
  json::Object entries{{"__metadata__", json::Object{{"format", "pt"}}}};
  std::int64_t offset = 0;
  for (std::size_t i = shard.begin; i < shard.end; ++i) {
    const std::int64_t end = offset + bytes_of(tensors[i], dtype);
    entries.push_back(
        {tensors[i].name, json::Object{{"dtype", file_dtype(dtype)},
                                       {"shape", json::Array(tensors[i].shape.begin(), tensors[i].shape.end())},
                                       {"data_offsets", json::Array{offset, end}}}});
    offset = end;
  }
  std::string text = json::write(entries, false);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::string length;
  for (int i = 0; i < 8; ++i) length += static_cast<char>(static_cast<std::uint64_t>(text.size()) >> (8 * i) & 0xFF);
  return length + text;
}

/// Rounds in place to Stored, packed at the front of the buffer; false where a number is not finite afterwards.
template <typename Stored>
bool pack(float* values, std::int64_t count) {
  std::byte* out = reinterpret_cast<std::byte*>(values);
  bool finite = true;
  for (std::int64_t i = 0; i < count; ++i) {
    const Stored stored(values[i]);
    finite &= std::isfinite(static_cast<float>(stored));
    std::memcpy(out + static_cast<std::size_t>(i) * sizeof(Stored), &stored, sizeof(Stored));
  }
  return finite;
}

bool pack_as(DType dtype, float* values, std::int64_t count) {
  if (dtype == DType::BFloat16) return pack<BFloat16>(values, count);
  if (dtype == DType::Float16) return pack<Float16>(values, count);
  return pack<float>(values, count);
}

}  // namespace

void write_tensor_files(AtomicDirectory& directory, const std::vector<TensorToWrite>& tensors, DType dtype,
                        std::int64_t max_shard_bytes, const ReadTensorRows& read) {
  if (max_shard_bytes < 1) fail(ErrorCode::InvalidArgument, "a shard must be allowed at least one byte");
  file_dtype(dtype);
  std::int64_t buffer_elements = chunk_elements;
  for (const TensorToWrite& tensor : tensors) {
    if (tensor.shape.empty() || tensor.shape.size() > 2) {
      fail(ErrorCode::InvalidArgument, "tensor ", tensor.name, " must have one or two dimensions to be saved");
    }
    buffer_elements = std::max(buffer_elements, cols_of(tensor));
  }
  std::vector<float> buffer(static_cast<std::size_t>(buffer_elements));
  const std::vector<Shard> shards = plan_shards(tensors, dtype, max_shard_bytes);
  json::Object weight_map;
  std::int64_t total_bytes = 0;

  for (const Shard& shard : shards) {
    OutputFile file = directory.create(shard.name);
    const std::string head = header(tensors, shard, dtype);
    file.write(head.data(), head.size());
    for (std::size_t i = shard.begin; i < shard.end; ++i) {
      const std::int64_t rows = rows_of(tensors[i]), cols = cols_of(tensors[i]);
      const std::int64_t rows_at_once = buffer_elements / std::max<std::int64_t>(cols, 1);
      for (std::int64_t begin = 0; begin < rows; begin += rows_at_once) {
        const std::int64_t count = std::min(rows_at_once, rows - begin);
        read(i, begin, count, buffer.data());
        if (!pack_as(dtype, buffer.data(), count * cols)) {
          fail(ErrorCode::NonFinite, "tensor ", tensors[i].name,
               " holds a number that is NaN, infinite or too large for ", name_of(dtype), "; nothing was saved");
        }
        file.write(buffer.data(), static_cast<std::size_t>(count * cols) * size_of(dtype));
      }
      weight_map.push_back({tensors[i].name, shard.name});
      total_bytes += bytes_of(tensors[i], dtype);
    }
    file.close();
  }
  if (shards.size() > 1) {
    const json::Value index =
        json::Object{{"metadata", json::Object{{"total_size", total_bytes}}}, {"weight_map", std::move(weight_map)}};
    directory.write("model.safetensors.index.json", json::write(index) + "\n");
  }
}

}  // namespace foretoken
