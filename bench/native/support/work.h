#pragma once

#include "model/parameters.h"

// How much work a model is, whoever does it.
namespace foretoken::bench {

/// Multiplications' parameters: all but the embedding's look-up, the head once.
inline double product_parameters(const ModelConfig& config) {
  double sum = 0;
  for (const ParameterSpec& spec : parameter_specs(config))
    if (spec.kind == ParameterKind::Projection || spec.kind == ParameterKind::Head) sum += static_cast<double>(spec.elements());
  if (config.tie_word_embeddings) sum += static_cast<double>(config.vocab_size * config.hidden_size);
  return sum;
}

/// FLOPs of attention's forward pass per token, causal, in sequences of `length`.
inline double attention_flops(const ModelConfig& config, double length) {
  return 2.0 * static_cast<double>(config.num_layers * config.query_width()) * length;
}

}  // namespace foretoken::bench
