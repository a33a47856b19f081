#pragma once

#include "model/decoder.h"

namespace foretoken {

/// The final norm and the language-model head, a chunk of rows at a time: logits of no more than one chunk exist.
class Head {
 public:
  Head(Backend& backend, const ModelConfig& config);

  /// Rows per chunk: as many as keep the logits near 64 MB (a GPU's near 1 GB), so that a chunk's weight gradient still
  /// reuses the weights.
  static std::int64_t chunk_rows(const Backend& backend, const ModelConfig& config);

  struct Buffers {
    View x;        // (n, C) A
    View normed;   // (n, C) T
    View rstd;     // (1, n) A
    View logits;   // (n, V) A
    View lse, entropy, top_entropy;  // (1, n) A
    // Backward only:
    View dlogits;  // (n, V) T
    View dentropy; // (1, n) A
    View dnormed;  // (n, C) A
    View dx;       // (n, C) A
    void lay_out(Arena& arena, const Backend& backend, const ModelConfig& config, std::int64_t rows, bool backward);
    Buffers first_rows(std::int64_t rows) const;
  };

  /// b.x = x[index] and b.normed = norm(b.x) for b.logits.rows rows.
  void input(const Weights& weights, View x, const std::int32_t* index, const Buffers& b) const;
  /// The same and b.logits = W_head · b.normed.
  void logits(const Weights& weights, View x, const std::int32_t* index, const Buffers& b) const;

  /// After logprob_backward filled b.dlogits: adds to dx (N, C) A at rows index and to the gradients.
  void backward(const Weights& weights, const ModelParameters& parameters, const ParameterStore& gradients,
                const std::int32_t* index, const Buffers& b, View dx) const;

 private:
  Backend& backend_;
  double epsilon_;
};

}  // namespace foretoken
