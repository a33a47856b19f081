#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"

namespace foretoken {

enum class ModelFamily { Llama, Mistral, Qwen2, Qwen3 };

enum class RopeType { Default, Linear, Dynamic, Llama3, Yarn };

/// How positions turn into angles; the names are those of `rope_scaling` and `rope_parameters` in config.json.
struct RopeConfig {
  RopeType type = RopeType::Default;
  double theta = 10000.0;
  double factor = 1.0;                                // all but default
  std::int64_t original_max_position_embeddings = 0;  // llama3, yarn
  double low_freq_factor = 1.0;                       // llama3
  double high_freq_factor = 4.0;                      // llama3
  std::optional<double> attention_factor;             // yarn; absent: follows from factor and the two mscales
  std::optional<double> mscale;                       // yarn
  std::optional<double> mscale_all_dim;               // yarn
  double beta_fast = 32.0;                            // yarn
  double beta_slow = 1.0;                             // yarn
  bool truncate = true;                               // yarn

  bool operator==(const RopeConfig&) const = default;
};

/// What config.json says about a decoder of the Llama family, checked and with every default filled in.
struct ModelConfig {
  ModelFamily family = ModelFamily::Llama;
  std::int64_t vocab_size = 0;         // V
  std::int64_t hidden_size = 0;        // C
  std::int64_t intermediate_size = 0;  // F
  std::int64_t num_layers = 0;         // L
  std::int64_t num_heads = 0;          // H
  std::int64_t num_kv_heads = 0;       // K, divides H
  std::int64_t head_dim = 0;           // D, even; H * D need not be C
  double rms_norm_eps = 1e-6;
  bool tie_word_embeddings = false;   // the head is the embedding; there is no lm_head.weight
  bool qkv_bias = false;              // biases of q_proj, k_proj and v_proj
  bool output_bias = false;           // bias of o_proj
  bool mlp_bias = false;              // biases of gate_proj, up_proj and down_proj
  bool qk_norm = false;               // RMSNorm over D of every query and key head, before RoPE
  std::vector<std::int64_t> windows;  // (L) a query sees itself and the windows[l] - 1 tokens before it; 0: all
  RopeConfig rope;
  std::int64_t max_position_embeddings = 0;
  double initializer_range = 0.02;
  std::optional<std::int64_t> bos_token_id;
  std::vector<std::int64_t> eos_token_ids;
  std::optional<std::int64_t> pad_token_id;
  DType dtype = DType::Float32;  // Float32, BFloat16 or Float16: what the checkpoint says it is stored in

  std::int64_t query_width() const { return num_heads * head_dim; }          // H·D
  std::int64_t kv_width() const { return num_kv_heads * head_dim; }          // K·D
  std::int64_t qkv_width() const { return query_width() + 2 * kv_width(); }  // (H + 2K)·D

  bool operator==(const ModelConfig&) const = default;
};

/// Reads the text of a config.json in either spelling (transformers 4: `rope_theta`, `rope_scaling`, `torch_dtype`;
/// transformers 5: `rope_parameters`, `dtype`); absent fields take the defaults that transformers has for the family.
/// `source` is the file's name for messages. Throws InvalidConfig for a malformed or contradictory value and
/// UnsupportedConfig for a field, value or architecture that is not implemented; each names the field.
///
/// `attention_dropout` is accepted and not applied: foretoken never drops, in training neither, because sampler and
/// trainer must compute the same log-probs.
ModelConfig parse_config(std::string_view text, const std::string& source);

/// The text of a config.json that transformers 4 and 5 load to the same model.
std::string to_config_json(const ModelConfig& config);

}  // namespace foretoken
