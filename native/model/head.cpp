#include "model/head.h"

#include <algorithm>

namespace foretoken {

Head::Head(Backend& backend, const ModelConfig& config) : backend_(backend), epsilon_(config.rms_norm_eps) {}

std::int64_t Head::chunk_rows(const Backend& backend, const ModelConfig& config) {
  // A GPU is busy with products of thousands of rows only: each chunk reads the head's weights and adds to their gradient,
  // which are as large as hundreds of rows of logits.
  const bool gpu = backend.asynchronous();
  const std::int64_t logits_bytes = std::int64_t{gpu ? 1024 : 64} << 20;
  const std::int64_t rows = logits_bytes / (4 * config.vocab_size);
  return std::clamp<std::int64_t>(rows / 64 * 64, 64, gpu ? 4096 : 1024);
}

void Head::Buffers::lay_out(Arena& arena, const Backend& backend, const ModelConfig& config, std::int64_t rows, bool backward) {
  const DType T = backend.activation_dtype(), A = backend.accumulation_dtype();
  const std::int64_t C = config.hidden_size, V = config.vocab_size;
  x = arena.matrix(A, rows, C);
  normed = arena.matrix(T, rows, C);
  rstd = arena.matrix(A, 1, rows);
  logits = arena.matrix(A, rows, V);
  lse = arena.matrix(A, 1, rows);
  entropy = arena.matrix(A, 1, rows);
  top_entropy = arena.matrix(A, 1, rows);
  if (!backward) return;
  dlogits = arena.matrix(T, rows, V);
  dentropy = arena.matrix(A, 1, rows);
  dnormed = arena.matrix(A, rows, C);
  dx = arena.matrix(A, rows, C);
}

Head::Buffers Head::Buffers::first_rows(std::int64_t rows) const {
  Buffers part = *this;
  for (View* view : {&part.x, &part.normed, &part.logits, &part.dlogits, &part.dnormed, &part.dx})
    if (*view) *view = view->slice_rows(0, rows);
  for (View* view : {&part.rstd, &part.lse, &part.entropy, &part.top_entropy, &part.dentropy})
    if (*view) *view = view->slice_cols(0, rows);
  return part;
}

void Head::input(const Weights& weights, View x, const std::int32_t* index, const Buffers& b) const {
  backend_.gather_rows(x, index, b.x);
  backend_.norm_forward(b.x, weights.final_norm, epsilon_, b.normed, b.rstd);
}

void Head::logits(const Weights& weights, View x, const std::int32_t* index, const Buffers& b) const {
  input(weights, x, index, b);
  backend_.linear_forward(b.normed, *weights.head, {}, {}, b.logits);
}

void Head::backward(const Weights& weights, const ModelParameters& parameters, const ParameterStore& gradients,
                    const std::int32_t* index, const Buffers& b, View dx) const {
  backend_.linear_backward_weight(b.dlogits, b.normed, gradients[parameters.head]);
  backend_.linear_backward_input(b.dlogits, *weights.head, b.dnormed, false);
  backend_.fill_zero(b.dx);
  backend_.norm_backward(b.x, weights.final_norm, b.rstd, b.dnormed, b.dx, {}, gradients[parameters.final_norm]);
  backend_.scatter_add_rows(b.dx, index, dx);
}

}  // namespace foretoken
