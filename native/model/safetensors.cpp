#include "model/safetensors.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "core/error.h"
#include "core/json.h"

namespace foretoken {

namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t max_header_bytes = 100'000'000;  // the reference implementation's
constexpr const char* single_file = "model.safetensors";
constexpr const char* index_file = "model.safetensors.index.json";

struct FileDType {
  const char* name;
  unsigned bits;
  std::optional<DType> dtype;
};

constexpr FileDType file_dtypes[] = {
    {"F64", 64, DType::Float64}, {"F32", 32, DType::Float32}, {"BF16", 16, DType::BFloat16},
    {"F16", 16, DType::Float16}, {"BOOL", 8, {}}, {"U8", 8, {}}, {"I8", 8, {}}, {"U16", 16, {}}, {"I16", 16, {}},
    {"U32", 32, {}}, {"I32", 32, {}}, {"U64", 64, {}}, {"I64", 64, {}}, {"C64", 64, {}}, {"F8_E4M3", 8, {}},
    {"F8_E5M2", 8, {}}, {"F8_E8M0", 8, {}}, {"F4", 4, {}}, {"F6_E2M3", 6, {}}, {"F6_E3M2", 6, {}},
};

/// a * b in 64 bits unsigned; false where it overflows.
bool multiply(std::uint64_t& a, std::uint64_t b) {
  if (b != 0 && a > std::numeric_limits<std::uint64_t>::max() / b) return false;
  a *= b;
  return true;
}

/// Reads one header: `file` is for messages, data the bytes after the header.
class HeaderReader {
 public:
  HeaderReader(const std::string& file, std::span<const std::byte> data) : file_(file), data_(data) {}

  StoredTensor read_entry(const std::string& name, const json::Value& entry) {
    const json::Object* object = entry.as_object();
    if (!object) refuse(name, "its entry must be an object");
    StoredTensor tensor;
    tensor.name = name;
    tensor.file = file_;
    bool has_dtype = false, has_shape = false, has_offsets = false;
    for (const json::Member& member : *object) {
      if (member.key == "dtype") {
        const std::string* text = member.value.as_string();
        if (!text) refuse(name, "dtype must be a string");
        tensor.dtype_name = *text;
        has_dtype = true;
      } else if (member.key == "shape") {
        const json::Array* list = member.value.as_array();
        if (!list) refuse(name, "shape must be an array");
        for (const json::Value& size : *list) tensor.shape.push_back(natural(name, "shape", size));
        has_shape = true;
      } else if (member.key == "data_offsets") {
        read_offsets(tensor, member.value);
        has_offsets = true;
      } else {
        refuse(name, "its entry has an unknown key '" + member.key + "'");
      }
    }
    if (!has_dtype || !has_shape || !has_offsets) refuse(name, "its entry must have dtype, shape and data_offsets");
    check_size(tensor);
    return tensor;
  }

  /// Each byte of the data must belong to exactly one tensor; tensors are in the order of their offsets.
  void check_coverage(const std::vector<StoredTensor>& tensors) const {
    std::size_t end = 0;
    for (const StoredTensor& tensor : tensors) {
      const std::size_t begin = static_cast<std::size_t>(tensor.data - data_.data());
      if (begin < end) refuse(tensor.name, "its data overlaps another tensor's");
      if (begin > end) refuse(tensor.name, "bytes before its data belong to no tensor");
      end = begin + tensor.bytes;
    }
    if (end != data_.size()) {
      fail(ErrorCode::InvalidCheckpoint, file_, ": the tensors cover ", end, " bytes of data, but the file has ",
           data_.size(), "; it is truncated or damaged, download or save it again");
    }
  }

 private:
  [[noreturn]] void refuse(const std::string& name, const std::string& what) const {
    fail(ErrorCode::InvalidCheckpoint, file_, ": tensor ", json::write(name), ": ", what);
  }

  std::int64_t natural(const std::string& name, const char* what, const json::Value& value) const {
    const json::Number* number = value.as_number();
    if (!number || !number->integer || *number->integer < 0)
      refuse(name, std::string(what) + " must hold integers >= 0");
    return *number->integer;
  }

  void read_offsets(StoredTensor& tensor, const json::Value& value) const {
    const json::Array* list = value.as_array();
    if (!list || list->size() != 2) refuse(tensor.name, "data_offsets must be [begin, end]");
    const auto begin = static_cast<std::uint64_t>(natural(tensor.name, "data_offsets", (*list)[0]));
    const auto end = static_cast<std::uint64_t>(natural(tensor.name, "data_offsets", (*list)[1]));
    if (begin > end || end > data_.size()) {
      refuse(tensor.name, "data_offsets " + json::write(value, false) + " lie outside the file's " +
                              std::to_string(data_.size()) + " bytes of data");
    }
    tensor.data = data_.data() + begin;
    tensor.bytes = static_cast<std::size_t>(end - begin);
  }

  /// shape · dtype must be the bytes. The size of a dtype nobody has heard of is unknown; such a tensor is refused
  /// by the one who needs it.
  void check_size(StoredTensor& tensor) const {
    for (const FileDType& known : file_dtypes) {
      if (tensor.dtype_name != known.name) continue;
      tensor.dtype = known.dtype;
      std::uint64_t bits = known.bits;
      for (const std::int64_t size : tensor.shape) {
        if (!multiply(bits, static_cast<std::uint64_t>(size))) refuse(tensor.name, "its shape overflows 64 bits");
      }
      if (bits % 8 != 0 || bits / 8 != tensor.bytes) {
        refuse(tensor.name, "its shape and dtype " + tensor.dtype_name + " need " + std::to_string(bits / 8) +
                                " bytes, data_offsets give " + std::to_string(tensor.bytes));
      }
    }
  }

  const std::string& file_;
  std::span<const std::byte> data_;
};

std::map<std::string, std::string> read_metadata(const std::string& file, const json::Value& value) {
  const json::Object* object = value.as_object();
  if (!object) fail(ErrorCode::InvalidCheckpoint, file, ": __metadata__ must be an object");
  std::map<std::string, std::string> metadata;
  for (const json::Member& member : *object) {
    const std::string* text = member.value.as_string();
    if (!text) fail(ErrorCode::InvalidCheckpoint, file, ": __metadata__.", member.key, " must be a string");
    metadata[member.key] = *text;
  }
  return metadata;
}

constexpr json::Limits header_limits{.bytes = max_header_bytes, .values = 4'000'000, .depth = 64};

/// The shard of every tensor according to an index; a shard is a plain file name, so that it lies in the directory.
std::map<std::string, std::string> read_index(const fs::path& path) {
  const MappedFile file(path);
  const std::string source = path.string();
  const json::Value root = json::parse(file.text(), source, ErrorCode::InvalidCheckpoint, header_limits);
  const json::Value* weight_map = root.find("weight_map");
  const json::Object* entries = weight_map ? weight_map->as_object() : nullptr;
  if (!entries) fail(ErrorCode::InvalidCheckpoint, source, ": weight_map must be an object of tensor names and files");
  std::map<std::string, std::string> shards;
  for (const json::Member& member : *entries) {
    const std::string* name = member.value.as_string();
    if (!name)
      fail(ErrorCode::InvalidCheckpoint, source, ": weight_map: ", json::write(member.key), " must name a file");
    const bool plain = name->find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
    if (!plain || !name->ends_with(".safetensors")) {
      fail(ErrorCode::InvalidCheckpoint, source, ": weight_map: ", json::write(member.key), " lies in ",
           json::write(*name), ", which is not the name of a .safetensors file in the same directory");
    }
    shards[member.key] = *name;
  }
  return shards;
}

}  // namespace

SafetensorsFile::SafetensorsFile(const fs::path& path) : file_(path) {
  const std::string source = path.string();
  const std::span<const std::byte> bytes = file_.bytes();
  const auto refuse = [&](const std::string& what) { fail(ErrorCode::InvalidCheckpoint, source, ": ", what); };

  if (bytes.size() < 8)
    refuse("has " + std::to_string(bytes.size()) + " bytes; a safetensors file starts with 8 of length");
  std::uint64_t header_bytes = 0;
  for (int i = 7; i >= 0; --i) header_bytes = header_bytes << 8 | std::to_integer<std::uint64_t>(bytes[i]);
  if (header_bytes > max_header_bytes) {
    refuse("its header claims " + std::to_string(header_bytes) +
           " bytes; at most 100,000,000 are allowed. Is this a "
           "safetensors file?");
  }
  if (header_bytes > bytes.size() - 8) {
    refuse("its header claims " + std::to_string(header_bytes) + " bytes, but the file has " +
           std::to_string(bytes.size()));
  }
  const std::string_view header = file_.text().substr(8, header_bytes);
  if (!header.starts_with('{')) refuse("its header does not start with '{'");

  const json::Value root = json::parse(header, source, ErrorCode::InvalidCheckpoint, header_limits);
  HeaderReader reader(source, bytes.subspan(8 + header_bytes));
  for (const json::Member& member : *root.as_object()) {
    if (member.key == "__metadata__") metadata_ = read_metadata(source, member.value);
    else tensors_.push_back(reader.read_entry(member.key, member.value));
  }
  std::sort(tensors_.begin(), tensors_.end(), [](const StoredTensor& a, const StoredTensor& b) {
    return a.data != b.data ? a.data < b.data : a.bytes < b.bytes;
  });
  reader.check_coverage(tensors_);
}

TensorFiles::TensorFiles(const fs::path& directory) {
  std::error_code ignored;
  // Where both exist, transformers reads the single file.
  if (fs::exists(directory / single_file, ignored)) {
    files_.emplace_back(directory / single_file);
    for (const StoredTensor& tensor : files_.back().tensors()) by_name_[tensor.name] = &tensor;
    return;
  }
  const fs::path index = directory / index_file;
  if (!fs::exists(index, ignored)) {
    fail(ErrorCode::Io, directory.string(), " has neither ", single_file, " nor ", index_file,
         "; only safetensors are read, convert other formats with transformers' save_pretrained");
  }
  const std::map<std::string, std::string> shard_of = read_index(index);
  std::map<std::string, std::size_t> shards;
  for (const auto& [name, shard] : shard_of) shards.emplace(shard, shards.size());
  std::vector<std::string> names(shards.size());
  for (const auto& [shard, position] : shards) names[position] = shard;
  for (const std::string& shard : names) files_.emplace_back(directory / shard);

  for (std::size_t i = 0; i < files_.size(); ++i) {
    for (const StoredTensor& tensor : files_[i].tensors()) {
      const auto listed = shard_of.find(tensor.name);
      if (listed == shard_of.end()) {
        fail(ErrorCode::InvalidCheckpoint, tensor.file, ": tensor ", json::write(tensor.name), " is not in ",
             index_file);
      }
      if (listed->second != names[i]) {
        fail(ErrorCode::InvalidCheckpoint, tensor.file, ": tensor ", json::write(tensor.name), " belongs into ",
             listed->second, " according to ", index_file);
      }
      by_name_[tensor.name] = &tensor;
    }
  }
  for (const auto& [name, shard] : shard_of) {
    if (!by_name_.contains(name)) {
      fail(ErrorCode::InvalidCheckpoint, (directory / shard).string(), ": tensor ", json::write(name),
           " is missing, but ", index_file, " says it is here");
    }
  }
}

const StoredTensor* TensorFiles::find(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : found->second;
}

namespace {

/// Elements through memory copies: the file promises no alignment.
template <typename Stored, typename Out>
bool convert(const std::byte* data, std::int64_t count, Out* out) {
  bool finite = true;
  for (std::int64_t i = 0; i < count; ++i) {
    Stored stored;
    std::memcpy(&stored, data + static_cast<std::size_t>(i) * sizeof(Stored), sizeof(Stored));
    out[i] = Out(static_cast<float>(stored));
    finite &= std::isfinite(static_cast<float>(out[i]));
  }
  return finite;
}

template <typename Out>
bool read_as(const StoredTensor& tensor, std::int64_t begin, std::int64_t count, Out* out) noexcept {
  const std::byte* data = tensor.data + static_cast<std::size_t>(begin) * size_of(*tensor.dtype);
  switch (*tensor.dtype) {
    case DType::Float64: return convert<double>(data, count, out);
    case DType::Float32: return convert<float>(data, count, out);
    case DType::BFloat16: return convert<BFloat16>(data, count, out);
    case DType::Float16: return convert<Float16>(data, count, out);
  }
  return false;
}

}  // namespace

bool read_elements(const StoredTensor& tensor, std::int64_t begin, std::int64_t count, float* out) noexcept {
  return read_as(tensor, begin, count, out);
}

bool read_elements(const StoredTensor& tensor, std::int64_t begin, std::int64_t count, BFloat16* out) noexcept {
  return read_as(tensor, begin, count, out);
}

}  // namespace foretoken
