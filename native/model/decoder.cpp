#include "model/decoder.h"

#include <cmath>

#include "core/error.h"
#include "model/rope.h"

namespace foretoken {

Decoder::Decoder(Backend& backend, const ModelConfig& config, std::int64_t positions)
    : backend_(backend), config_(config) {
  const std::int64_t D = config.head_dim;
  std::vector<float> table(static_cast<std::size_t>(positions * D));
  fill_rope_table(rope_frequencies(config, config.max_position_embeddings), positions, table.data());
  const DType A = backend.accumulation_dtype();
  rope_buffer_ = Buffer(backend, table.size() * size_of(A));
  rope_ = View(rope_buffer_.data(), A, positions, D);
  if (A == DType::Float64) {
    const std::vector<double> wide(table.begin(), table.end());
    backend.upload(rope_.data, wide.data(), wide.size() * sizeof(double));
  } else {
    backend.upload(rope_.data, table.data(), table.size() * sizeof(float));
  }
}

AttentionShape Decoder::attention_shape(std::int64_t layer) const {
  AttentionShape shape;
  shape.heads = static_cast<int>(config_.num_heads);
  shape.kv_heads = static_cast<int>(config_.num_kv_heads);
  shape.head_dim = static_cast<int>(config_.head_dim);
  shape.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(config_.head_dim)));
  shape.window = static_cast<std::int32_t>(config_.windows[layer]);
  return shape;
}

void BlockActivations::lay_out(Arena& arena, const Backend& backend, const ModelConfig& config, std::int64_t rows,
                               bool backward) {
  const DType T = backend.activation_dtype(), A = backend.accumulation_dtype();
  const std::int64_t C = config.hidden_size, F = config.intermediate_size;
  normed1 = arena.matrix(T, rows, C);
  rstd1 = arena.matrix(A, 1, rows);
  qkv = arena.matrix(T, rows, config.qkv_width());
  q = arena.matrix(T, rows, config.query_width());
  if (backward) k = arena.matrix(T, rows, config.kv_width());
  attention = arena.matrix(T, rows, config.query_width());
  if (backward) lse = arena.matrix(A, rows, config.num_heads);
  x_mid = arena.matrix(A, rows, C);
  normed2 = arena.matrix(T, rows, C);
  rstd2 = arena.matrix(A, 1, rows);
  gate_up = arena.matrix(T, rows, 2 * F);
  h = arena.matrix(T, rows, F);
}

BlockActivations BlockActivations::first_rows(std::int64_t rows) const {
  BlockActivations part = *this;
  for (View* view : {&part.x_in, &part.normed1, &part.qkv, &part.q, &part.k, &part.attention, &part.lse, &part.x_mid,
                     &part.normed2, &part.gate_up, &part.h})
    if (*view) *view = view->slice_rows(0, rows);
  part.rstd1 = rstd1.slice_cols(0, rows);
  part.rstd2 = rstd2.slice_cols(0, rows);
  return part;
}

void Decoder::Gradients::lay_out(Arena& arena, const Backend& backend, const ModelConfig& config, std::int64_t rows) {
  const DType T = backend.activation_dtype(), A = backend.accumulation_dtype();
  const std::int64_t C = config.hidden_size, F = config.intermediate_size;
  if (T != A) dx_t = arena.matrix(T, rows, C);
  dh = arena.matrix(T, rows, F);
  dgate_up = arena.matrix(T, rows, 2 * F);
  dnormed = arena.matrix(A, rows, C);
  dattention = arena.matrix(T, rows, config.query_width());
  dq = arena.matrix(A, rows, config.query_width());
  dk = arena.matrix(A, rows, config.kv_width());
  dv = arena.matrix(A, rows, config.kv_width());
  dqkv = arena.matrix(T, rows, config.qkv_width());
}

Decoder::Gradients Decoder::Gradients::first_rows(std::int64_t rows) const {
  Gradients part = *this;
  for (View* view : {&part.dx_t, &part.dh, &part.dgate_up, &part.dnormed, &part.dattention, &part.dq, &part.dk, &part.dv,
                     &part.dqkv})
    if (*view) *view = view->slice_rows(0, rows);
  return part;
}

void Decoder::embed(const Weights& weights, const DeviceBatch& batch, View x) const {
  backend_.embed_forward(batch.tokens, weights.embedding, x);
}

//   x_mid = x_in + W_o · attention(rope(W_qkv · norm(x_in)))
//   x_out = x_mid + W_down · swiglu(W_gate_up · norm(x_mid))
void Decoder::block_forward(const Weights& weights, std::int64_t layer, const DeviceBatch& batch, void* pages,
                            BlockActivations& a, View x_out) const {
  block_keys(weights, layer, batch, pages, a);
  backend_.attention_forward(a.q, pages, batch.paths, attention_shape(layer), a.attention, a.lse);
  block_rest(weights, layer, a.attention, a.x_in, a, x_out);
}

/// Up to attention: fills q, and the pages with keys and values.
void Decoder::block_keys(const Weights& weights, std::int64_t layer, const DeviceBatch& batch, void* pages,
                         BlockActivations& a) const {
  const Weights::Block& w = weights.blocks[layer];
  const AttentionShape shape = attention_shape(layer);
  const double epsilon = config_.rms_norm_eps;

  backend_.norm_forward(a.x_in, w.input_norm, epsilon, a.normed1, a.rstd1);
  backend_.linear_forward(a.normed1, *w.qkv, w.qkv_bias, {}, a.qkv);
  backend_.rope_forward(a.qkv, w.q_norm, w.k_norm, epsilon, batch.positions, rope_, shape, batch.writes, pages, a.q,
                        a.k);
}

/// From attention's result on; x_in may be a.x_mid.
void Decoder::block_rest(const Weights& weights, std::int64_t layer, View attention, View x_in, BlockActivations& a,
                         View x_out) const {
  const Weights::Block& w = weights.blocks[layer];
  backend_.linear_forward(attention, *w.o, w.o_bias, x_in, a.x_mid);
  backend_.norm_forward(a.x_mid, w.post_norm, config_.rms_norm_eps, a.normed2, a.rstd2);
  backend_.linear_forward(a.normed2, *w.gate_up, w.gate_up_bias, {}, a.gate_up);
  backend_.swiglu_forward(a.gate_up, a.h);
  backend_.linear_forward(a.h, *w.down, w.down_bias, a.x_mid, x_out);
}

View Decoder::forward(const Weights& weights, const DeviceBatch& batch, void* pages, std::size_t layer_bytes,
                      const ForwardMemory& memory, const Control& control, const WantedRows* wanted) const {
  const auto residual = [&](std::int64_t layer) {
    return memory.x[static_cast<std::size_t>(layer) % memory.x.size()].slice_rows(0, batch.rows);
  };
  View to = residual(0);
  embed(weights, batch, to);
  for (std::int64_t layer = 0; layer < config_.num_layers; ++layer) {
    control.check();
    BlockActivations a = memory.blocks[static_cast<std::size_t>(layer) % memory.blocks.size()];
    a.x_in = to;
    to = residual(layer + 1);
    a = a.first_rows(batch.rows);
    void* const layer_pages = static_cast<std::byte*>(pages) + static_cast<std::size_t>(layer) * layer_bytes;
    if (!wanted || layer + 1 < config_.num_layers) {
      block_forward(weights, layer, batch, layer_pages, a, to);
    } else {
      block_keys(weights, layer, batch, layer_pages, a);
      to = to.slice_rows(0, wanted->count);
      if (wanted->count == 0) return to;
      backend_.attention_forward(a.q, layer_pages, wanted->paths, attention_shape(layer), a.attention, {});
      const BlockActivations few = a.first_rows(wanted->count);
      backend_.gather_rows(a.attention, wanted->rows, few.q);  // q has been used
      backend_.gather_rows(a.x_in, wanted->rows, few.x_mid);
      a = few;
      block_rest(weights, layer, a.q, a.x_mid, a, to);
    }
  }
  return to;
}

void Decoder::block_restore(const Weights& weights, std::int64_t layer, const BlockActivations& a) const {
  const Weights::Block& w = weights.blocks[layer];
  backend_.norm_forward(a.x_in, w.input_norm, config_.rms_norm_eps, a.normed1, a.rstd1);
  backend_.norm_forward(a.x_mid, w.post_norm, config_.rms_norm_eps, a.normed2, a.rstd2);
  backend_.swiglu_forward(a.gate_up, a.h);
}

void Decoder::block_backward(const Weights& weights, const ModelParameters& parameters, const ParameterStore& gradients,
                             std::int64_t layer, const DeviceBatch& batch, const PackedPaths& paths,
                             const BlockActivations& a, Gradients& g, View dx) const {
  const Weights::Block& w = weights.blocks[layer];
  const BlockParameters& p = parameters.blocks[layer];
  const AttentionShape shape = attention_shape(layer);
  const View v = a.qkv.slice_cols(config_.query_width() + config_.kv_width(), config_.kv_width());
  const auto gradient = [&](int index) { return index < 0 ? View{} : gradients[index]; };

  const View dx_t = g.rounded(dx);
  backend_.linear_backward_weight(dx_t, a.h, gradients[p.down_weight]);
  if (p.down_bias >= 0) backend_.bias_backward(dx_t, gradients[p.down_bias]);
  backend_.linear_backward_input(dx_t, *w.down, g.dh, false);
  backend_.swiglu_backward(g.dh, a.gate_up, g.dgate_up);
  backend_.linear_backward_weight(g.dgate_up, a.normed2, gradients.fused(p.gate_weight, 2));
  if (p.gate_bias >= 0) backend_.bias_backward(g.dgate_up, gradients.fused(p.gate_bias, 2));
  backend_.linear_backward_input(g.dgate_up, *w.gate_up, g.dnormed, false);
  backend_.norm_backward(a.x_mid, w.post_norm, a.rstd2, g.dnormed, dx, g.dx_t, gradients[p.post_norm]);

  backend_.linear_backward_weight(dx_t, a.attention, gradients[p.o_weight]);
  if (p.o_bias >= 0) backend_.bias_backward(dx_t, gradients[p.o_bias]);
  backend_.linear_backward_input(dx_t, *w.o, g.dattention, false);
  backend_.attention_backward(a.q, a.k, v, a.attention, g.dattention, a.lse, paths, shape, g.dq, g.dk, g.dv);
  backend_.rope_backward(g.dq, g.dk, g.dv, a.qkv, w.q_norm, w.k_norm, config_.rms_norm_eps, batch.positions, rope_, shape,
                         g.dqkv, gradient(p.q_norm), gradient(p.k_norm));
  backend_.linear_backward_weight(g.dqkv, a.normed1, gradients.fused(p.q_weight, 3));
  if (p.q_bias >= 0) backend_.bias_backward(g.dqkv, gradients.fused(p.q_bias, 3));
  backend_.linear_backward_input(g.dqkv, *w.qkv, g.dnormed, false);
  backend_.norm_backward(a.x_in, w.input_norm, a.rstd1, g.dnormed, dx, layer > 0 ? g.dx_t : View{},
                         gradients[p.input_norm]);
}

}  // namespace foretoken
