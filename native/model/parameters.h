#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/config.h"

namespace foretoken {

enum class ParameterKind { Embedding, Head, Projection, Bias, Norm };

/// One trainable tensor under its Hugging Face name.
struct ParameterSpec {
  std::string name;
  std::vector<std::int64_t> shape;  // (rows, cols) or (cols)
  ParameterKind kind = ParameterKind::Projection;

  std::int64_t rows() const { return shape.size() == 2 ? shape[0] : 1; }
  std::int64_t cols() const { return shape.back(); }
  std::int64_t elements() const { return rows() * cols(); }
  /// Whether weight decay applies: to matrices, not to norms and biases.
  bool decays() const { return kind != ParameterKind::Bias && kind != ParameterKind::Norm; }
};

/// All parameters of a model, in the order in which memory holds them: the embedding; per layer input_layernorm,
/// q, k, v weights, q, k, v biases, q_norm, k_norm, o weight, o bias, post_attention_layernorm, gate and up weights,
/// gate and up biases, down weight, down bias; the final norm; lm_head unless it is tied. What a fused product
/// multiplies at once (q, k, v; gate, up) is therefore contiguous.
std::vector<ParameterSpec> parameter_specs(const ModelConfig& config);

}  // namespace foretoken
