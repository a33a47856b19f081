#include "model/checkpoint.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <string_view>

#include "core/atomic_directory.h"
#include "core/error.h"
#include "core/json.h"
#include "core/mapped_file.h"

namespace foretoken {

namespace fs = std::filesystem;

namespace {

constexpr const char* config_file = "config.json";
constexpr const char* head_name = "lm_head.weight";
constexpr const char* embedding_name = "model.embed_tokens.weight";

/// Files that belong to a model but not to its numbers; they come along when it is saved.
constexpr auto companion_files = std::to_array<std::string_view>({
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt",
    "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "chat_template.json",
    "generation_config.json",
});

bool is_checkpoint_file(const std::string& name) {
  return name == config_file || name.ends_with(".safetensors") || name == "model.safetensors.index.json" ||
         std::find(companion_files.begin(), companion_files.end(), name) != companion_files.end();
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return text + ")";
}

/// The stored tensor of a parameter, of the right shape and a readable dtype.
const StoredTensor& require(const TensorFiles& files, const ParameterSpec& spec, const fs::path& directory) {
  const StoredTensor* tensor = files.find(spec.name);
  if (!tensor) {
    fail(ErrorCode::InvalidCheckpoint, directory.string(), ": tensor ", spec.name, " of shape ", shape_text(spec.shape),
         " is missing, which config.json calls for",
         spec.name == head_name ? " (unless tie_word_embeddings is true)" : "");
  }
  if (tensor->shape != spec.shape) {
    fail(ErrorCode::InvalidCheckpoint, tensor->file, ": tensor ", spec.name, " has shape ", shape_text(tensor->shape),
         ", but config.json calls for ", shape_text(spec.shape));
  }
  if (!tensor->dtype) {
    fail(ErrorCode::InvalidCheckpoint, tensor->file, ": tensor ", spec.name, " has dtype ", tensor->dtype_name,
         "; only F32, BF16, F16 and F64 are read");
  }
  return *tensor;
}

/// Refuses a tensor without a parameter, but for two that follow from what was read: the RoPE frequencies that old
/// versions of transformers stored, and the head of a tied model where it repeats the embedding.
void check_unexpected(const StoredTensor& tensor, const ModelConfig& config, const TensorFiles& files) {
  if (tensor.name.starts_with("model.") && tensor.name.ends_with("rotary_emb.inv_freq")) return;
  if (tensor.name == head_name && config.tie_word_embeddings) {
    const StoredTensor& embedding = *files.find(embedding_name);
    const bool same = tensor.dtype_name == embedding.dtype_name && tensor.shape == embedding.shape &&
                      std::memcmp(tensor.data, embedding.data, tensor.bytes) == 0;
    if (same) return;
    fail(ErrorCode::InvalidCheckpoint, tensor.file, ": ", head_name, " differs from ", embedding_name,
         ", but config.json says tie_word_embeddings; set it to false to keep both, or remove the tensor");
  }
  fail(ErrorCode::InvalidCheckpoint, tensor.file, ": tensor ", json::write(tensor.name),
       " has no place in the model that config.json describes");
}

/// The config as it was, with the dtype that the tensors now have, in every spelling it uses.
std::string config_with_dtype(const std::string& text, const ModelConfig& config, DType dtype) {
  if (text.empty()) {
    ModelConfig saved = config;
    saved.dtype = dtype;
    return to_config_json(saved);
  }
  const json::Value root = json::parse(text, config_file, ErrorCode::InvalidConfig);
  if (parse_config(text, config_file).dtype == dtype && (root.find("dtype") || root.find("torch_dtype"))) return text;
  json::Object members;
  bool named = false;
  for (const json::Member& member : *root.as_object()) {
    const bool is_dtype = member.key == "dtype" || member.key == "torch_dtype";
    members.push_back({member.key, is_dtype ? json::Value(name_of(dtype)) : member.value});
    named |= is_dtype;
  }
  if (!named) members.push_back({"torch_dtype", name_of(dtype)});
  return json::write(members) + "\n";
}

}  // namespace

Checkpoint Checkpoint::open(const fs::path& directory) {
  std::error_code ignored;
  if (!fs::is_directory(directory, ignored)) {
    fail(ErrorCode::Io, directory.string(), " is not a directory; give the folder that holds config.json");
  }
  Checkpoint checkpoint;
  checkpoint.directory_ = directory;
  const fs::path config_path = directory / config_file;
  checkpoint.config_json_ = MappedFile(config_path).text();
  checkpoint.config_ = parse_config(checkpoint.config_json_, config_path.string());
  checkpoint.parameters_ = parameter_specs(checkpoint.config_);
  checkpoint.files_ = TensorFiles(directory);

  std::set<std::string_view> expected;
  for (const ParameterSpec& spec : checkpoint.parameters_) {
    checkpoint.tensors_.push_back(&require(checkpoint.files_, spec, directory));
    expected.insert(spec.name);
  }
  for (const auto& [name, tensor] : checkpoint.files_.tensors()) {
    if (!expected.contains(name)) check_unexpected(*tensor, checkpoint.config_, checkpoint.files_);
  }
  return checkpoint;
}

bool Checkpoint::read_rows(std::size_t index, std::int64_t begin, std::int64_t count, float* out) const noexcept {
  const std::int64_t cols = parameters_[index].cols();
  return read_elements(*tensors_[index], begin * cols, count * cols, out);
}

bool Checkpoint::read_rows(std::size_t index, std::int64_t begin, std::int64_t count, BFloat16* out) const noexcept {
  const std::int64_t cols = parameters_[index].cols();
  return read_elements(*tensors_[index], begin * cols, count * cols, out);
}

void Checkpoint::read(std::size_t index, float* out) const {
  if (!read_rows(index, 0, parameters_[index].rows(), out)) fail_non_finite(index);
}

void Checkpoint::fail_non_finite(std::size_t index) const {
  fail(ErrorCode::NonFinite, tensors_[index]->file, ": tensor ", parameters_[index].name,
       " holds NaN, infinity, or a number too large for the dtype it is loaded in");
}

void save_checkpoint(const fs::path& directory, const ModelConfig& config, const SaveOptions& options,
                     const ReadRows& read_rows) {
  const std::vector<ParameterSpec> specs = parameter_specs(config);
  std::vector<TensorToWrite> tensors;
  for (const ParameterSpec& spec : specs) tensors.push_back({spec.name, spec.shape});

  AtomicDirectory target(directory, is_checkpoint_file);
  target.write(config_file, config_with_dtype(options.config_json, config, options.dtype));
  if (!options.companions.empty()) {
    for (const std::string_view name : companion_files) {
      const fs::path file = options.companions / name;
      std::error_code ignored;
      if (fs::is_regular_file(file, ignored)) target.copy(file, std::string(name));
    }
  }
  write_tensor_files(target, tensors, options.dtype, options.max_shard_bytes,
                     [&](std::size_t index, std::int64_t begin, std::int64_t count, float* out) {
                       read_rows(specs[index], begin, count, out);
                     });
  target.commit();
}

}  // namespace foretoken
