#include "model/parameters.h"

namespace foretoken {

std::vector<ParameterSpec> parameter_specs(const ModelConfig& config) {
  const std::int64_t C = config.hidden_size, F = config.intermediate_size, V = config.vocab_size, D = config.head_dim;
  const std::int64_t Q = config.query_width(), KV = config.kv_width();

  std::vector<ParameterSpec> specs;
  const auto add = [&](std::string name, std::vector<std::int64_t> shape, ParameterKind kind) {
    specs.push_back({std::move(name), std::move(shape), kind});
  };

  add("model.embed_tokens.weight", {V, C}, ParameterKind::Embedding);
  for (std::int64_t l = 0; l < config.num_layers; ++l) {
    const std::string layer = "model.layers." + std::to_string(l) + ".";
    const auto norm = [&](const char* name, std::int64_t width) { add(layer + name, {width}, ParameterKind::Norm); };
    const auto bias = [&](const char* name, std::int64_t width) { add(layer + name, {width}, ParameterKind::Bias); };
    const auto projection = [&](const char* name, std::int64_t rows, std::int64_t cols) {
      add(layer + name, {rows, cols}, ParameterKind::Projection);
    };

    norm("input_layernorm.weight", C);
    projection("self_attn.q_proj.weight", Q, C);
    projection("self_attn.k_proj.weight", KV, C);
    projection("self_attn.v_proj.weight", KV, C);
    if (config.qkv_bias) {
      bias("self_attn.q_proj.bias", Q);
      bias("self_attn.k_proj.bias", KV);
      bias("self_attn.v_proj.bias", KV);
    }
    if (config.qk_norm) {
      norm("self_attn.q_norm.weight", D);
      norm("self_attn.k_norm.weight", D);
    }
    projection("self_attn.o_proj.weight", C, Q);
    if (config.output_bias) bias("self_attn.o_proj.bias", C);
    norm("post_attention_layernorm.weight", C);
    projection("mlp.gate_proj.weight", F, C);
    projection("mlp.up_proj.weight", F, C);
    if (config.mlp_bias) {
      bias("mlp.gate_proj.bias", F);
      bias("mlp.up_proj.bias", F);
    }
    projection("mlp.down_proj.weight", C, F);
    if (config.mlp_bias) bias("mlp.down_proj.bias", C);
  }
  add("model.norm.weight", {C}, ParameterKind::Norm);
  if (!config.tie_word_embeddings) add("lm_head.weight", {V, C}, ParameterKind::Head);
  return specs;
}

}  // namespace foretoken
