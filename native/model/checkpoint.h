#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "model/config.h"
#include "model/parameters.h"
#include "model/safetensors.h"

namespace foretoken {

/// A Hugging Face model directory, opened for reading: config.json and safetensors, single or sharded.
///
/// Everything but the numbers is checked when it is opened: each parameter of the configuration is there with its
/// shape in float32, bfloat16, float16 or float64, and nothing else is (but buffers that follow from the config).
class Checkpoint {
 public:
  /// Throws Io, InvalidConfig, UnsupportedConfig or InvalidCheckpoint, naming the file and the field or tensor.
  static Checkpoint open(const std::filesystem::path& directory);

  const std::filesystem::path& directory() const { return directory_; }
  const ModelConfig& config() const { return config_; }
  const std::string& config_json() const { return config_json_; }
  const std::vector<ParameterSpec>& parameters() const { return parameters_; }

  /// Reads rows [begin, begin + count) of parameter `index` into out (count, cols), rounding to nearest even.
  /// Answers false where a number is NaN or infinite (also after rounding). Throws nothing and keeps no state: any
  /// number of threads may read.
  bool read_rows(std::size_t index, std::int64_t begin, std::int64_t count, float* out) const noexcept;
  bool read_rows(std::size_t index, std::int64_t begin, std::int64_t count, BFloat16* out) const noexcept;

  /// Reads a whole parameter into out (rows, cols); throws NonFinite naming the tensor.
  void read(std::size_t index, float* out) const;

  /// Throws the NonFinite error for a parameter of which `read_rows` answered false.
  [[noreturn]] void fail_non_finite(std::size_t index) const;

 private:
  Checkpoint() = default;

  std::filesystem::path directory_;
  ModelConfig config_;
  std::string config_json_;
  std::vector<ParameterSpec> parameters_;
  TensorFiles files_;
  std::vector<const StoredTensor*> tensors_;  // (parameters) into files_
};

struct SaveOptions {
  DType dtype = DType::Float32;  // Float32, BFloat16 or Float16
  std::int64_t max_shard_bytes = 5'000'000'000;
  std::string config_json{};           // carried along but for its dtype; empty: written from the config
  std::filesystem::path companions{};  // a directory whose tokenizer files come along; empty: none
};

/// Gives rows [begin, begin + count) of a parameter as float32 in out (count, cols).
using ReadRows =
    std::function<void(const ParameterSpec& parameter, std::int64_t begin, std::int64_t count, float* out)>;

/// Writes a directory that transformers loads: config.json, safetensors (shards with index when larger than
/// `max_shard_bytes`) and tokenizer files. Atomic: `directory` holds either what it held or the whole new checkpoint.
/// Memory is a few MB. Throws Io, NonFinite naming a tensor, InvalidArgument when `directory` holds foreign files.
void save_checkpoint(const std::filesystem::path& directory, const ModelConfig& config, const SaveOptions& options,
                     const ReadRows& read_rows);

}  // namespace foretoken
