#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/atomic_directory.h"
#include "core/dtype.h"
#include "core/mapped_file.h"

namespace foretoken {

/// One tensor of a safetensors file; the bytes belong to the mapped file and may be unaligned.
struct StoredTensor {
  std::string name;
  std::string dtype_name;      // as the file spells it: F32, BF16, F8_E4M3, …
  std::optional<DType> dtype;  // absent where this build cannot read it
  std::vector<std::int64_t> shape;
  const std::byte* data = nullptr;
  std::size_t bytes = 0;
  std::string file;  // for messages
};

/// A memory-mapped safetensors file whose header passed every check of the reference implementation, and two more:
/// no name occurs twice, no entry has unknown keys.
class SafetensorsFile {
 public:
  /// Throws Io or InvalidCheckpoint.
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  MappedFile file_;
  std::vector<StoredTensor> tensors_;  // in the order of their bytes
  std::map<std::string, std::string> metadata_;
};

/// The tensors of a model directory: model.safetensors, or the shards that model.safetensors.index.json lists.
class TensorFiles {
 public:
  TensorFiles() = default;
  /// Throws Io or InvalidCheckpoint; index and shards must name exactly the same tensors.
  explicit TensorFiles(const std::filesystem::path& directory);

  /// The tensor of that name, or null. Pointers stay valid for the life of this object, also when it is moved.
  const StoredTensor* find(const std::string& name) const;
  const std::map<std::string, const StoredTensor*>& tensors() const { return by_name_; }

 private:
  std::vector<SafetensorsFile> files_;
  std::map<std::string, const StoredTensor*> by_name_;
};

/// Converts elements [begin, begin + count) of a tensor in a readable dtype. Answers false where one is not finite.
bool read_elements(const StoredTensor& tensor, std::int64_t begin, std::int64_t count, float* out) noexcept;
bool read_elements(const StoredTensor& tensor, std::int64_t begin, std::int64_t count, BFloat16* out) noexcept;

/// A tensor to be written: (cols) or (rows, cols).
struct TensorToWrite {
  std::string name;
  std::vector<std::int64_t> shape;
};

/// Gives rows [begin, begin + count) of tensor `index` as float32 in out (count, cols); a vector is one row.
using ReadTensorRows = std::function<void(std::size_t index, std::int64_t begin, std::int64_t count, float* out)>;

/// Writes model.safetensors, or shards of at most `max_shard_bytes` (a larger tensor gets one of its own) with
/// model.safetensors.index.json, into `directory`. Streams: memory is one buffer of 4 MB, or of one row if that is
/// more. Throws Io, InvalidArgument, or NonFinite naming the tensor that does not fit `dtype` as finite numbers.
void write_tensor_files(AtomicDirectory& directory, const std::vector<TensorToWrite>& tensors, DType dtype,
                        std::int64_t max_shard_bytes, const ReadTensorRows& read);

}  // namespace foretoken
