#include <algorithm>

#include "core/json.h"
#include "model/config.h"

namespace foretoken {

namespace {

// The spelling of transformers 4, which version 5 reads as well; the other way round fails.
json::Value rope_scaling(const RopeConfig& rope) {
  json::Object object;
  const auto put = [&](const char* key, json::Value value) { object.push_back({key, std::move(value)}); };
  const auto put_if = [&](const char* key, const std::optional<double>& value) {
    if (value) put(key, *value);
  };
  switch (rope.type) {
    case RopeType::Default: return nullptr;
    case RopeType::Linear: put("rope_type", "linear"); break;
    case RopeType::Dynamic: put("rope_type", "dynamic"); break;
    case RopeType::Llama3: put("rope_type", "llama3"); break;
    case RopeType::Yarn: put("rope_type", "yarn"); break;
  }
  put("factor", rope.factor);
  if (rope.type == RopeType::Llama3) {
    put("low_freq_factor", rope.low_freq_factor);
    put("high_freq_factor", rope.high_freq_factor);
  }
  if (rope.type == RopeType::Yarn) {
    put_if("attention_factor", rope.attention_factor);
    put_if("mscale", rope.mscale);
    put_if("mscale_all_dim", rope.mscale_all_dim);
    put("beta_fast", rope.beta_fast);
    put("beta_slow", rope.beta_slow);
    put("truncate", rope.truncate);
  }
  if (rope.original_max_position_embeddings > 0) {
    put("original_max_position_embeddings", rope.original_max_position_embeddings);
  }
  return object;
}

json::Value optional_id(const std::optional<std::int64_t>& id) { return id ? json::Value(*id) : json::Value(nullptr); }

json::Value eos_ids(const std::vector<std::int64_t>& ids) {
  if (ids.empty()) return nullptr;
  if (ids.size() == 1) return ids[0];
  return json::Array(ids.begin(), ids.end());
}

}  // namespace

std::string to_config_json(const ModelConfig& config) {
  json::Object object;
  const auto put = [&](const char* key, json::Value value) { object.push_back({key, std::move(value)}); };
  const bool qwen = config.family == ModelFamily::Qwen2 || config.family == ModelFamily::Qwen3;
  std::int64_t window = 0;
  for (const std::int64_t w : config.windows) window = std::max(window, w);
  const json::Value window_or_null = window > 0 ? json::Value(window) : json::Value(nullptr);

  switch (config.family) {
    case ModelFamily::Llama:
      put("architectures", json::Array{"LlamaForCausalLM"});
      put("model_type", "llama");
      break;
    case ModelFamily::Mistral:
      put("architectures", json::Array{"MistralForCausalLM"});
      put("model_type", "mistral");
      break;
    case ModelFamily::Qwen2:
      put("architectures", json::Array{"Qwen2ForCausalLM"});
      put("model_type", "qwen2");
      break;
    case ModelFamily::Qwen3:
      put("architectures", json::Array{"Qwen3ForCausalLM"});
      put("model_type", "qwen3");
      break;
  }
  if (config.family == ModelFamily::Llama || config.family == ModelFamily::Qwen3)
    put("attention_bias", config.qkv_bias);
  put("attention_dropout", 0.0);
  put("bos_token_id", optional_id(config.bos_token_id));
  put("eos_token_id", eos_ids(config.eos_token_ids));
  put("pad_token_id", optional_id(config.pad_token_id));
  // transformers' Qwen2Config has no such field, but its attention honours it.
  const bool implied = config.family == ModelFamily::Qwen2 && config.head_dim * config.num_heads == config.hidden_size;
  if (!implied) put("head_dim", config.head_dim);
  put("hidden_act", "silu");
  put("hidden_size", config.hidden_size);
  put("initializer_range", config.initializer_range);
  put("intermediate_size", config.intermediate_size);
  put("max_position_embeddings", config.max_position_embeddings);
  if (config.family == ModelFamily::Llama) put("mlp_bias", config.mlp_bias);
  put("num_attention_heads", config.num_heads);
  put("num_hidden_layers", config.num_layers);
  put("num_key_value_heads", config.num_kv_heads);
  put("rms_norm_eps", config.rms_norm_eps);
  put("rope_scaling", rope_scaling(config.rope));
  put("rope_theta", config.rope.theta);
  if (config.family == ModelFamily::Mistral) put("sliding_window", window_or_null);
  if (qwen) {
    put("use_sliding_window", window > 0);
    put("sliding_window", window_or_null);
    // Older versions of transformers 4 know only max_window_layers, newer ones prefer layer_types.
    std::size_t first = config.windows.size();
    while (first > 0 && config.windows[first - 1] > 0) --first;
    put("max_window_layers", static_cast<std::int64_t>(first));
    json::Array types;
    for (const std::int64_t w : config.windows) types.push_back(w > 0 ? "sliding_attention" : "full_attention");
    put("layer_types", std::move(types));
  }
  put("tie_word_embeddings", config.tie_word_embeddings);
  put("torch_dtype", name_of(config.dtype));
  put("use_cache", true);
  put("vocab_size", config.vocab_size);
  return json::write(object) + "\n";
}

}  // namespace foretoken
