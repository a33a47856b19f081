#pragma once

#include <span>
#include <vector>

#include "backend/arena.h"
#include "backend/backend.h"
#include "core/control.h"
#include "forest/packed_batch.h"
#include "model/config.h"
#include "model/weights.h"

namespace foretoken {

/// The rows that one pass through the network works on, in device memory.
struct DeviceBatch {
  std::int64_t rows = 0;                    // N
  const std::int32_t* tokens = nullptr;     // (N)
  const std::int32_t* positions = nullptr;  // (N)
  PagedPaths paths;
  CacheWrites writes;
};

/// What one block computes on the way. A pass without a backward one keeps nothing: its layers use the same buffers in turn.
struct BlockActivations {
  View x_in;       // (N, C) A: residual stream before the block
  View normed1;    // (N, C) T
  View rstd1;      // (1, N) A
  View qkv;        // (N, (H + 2K)·D) T
  View q;          // (N, H·D) T
  View k;          // (N, K·D) T, for the backward pass only: attention reads keys from pages
  View attention;  // (N, H·D) T
  View lse;        // (N, H) A, for the backward pass only
  View x_mid;      // (N, C) A: after attention
  View normed2;    // (N, C) T
  View rstd2;      // (1, N) A
  View gate_up;    // (N, 2F) T
  View h;          // (N, F) T

  /// All but x_in, which the caller places.
  void lay_out(Arena& arena, const Backend& backend, const ModelConfig& config, std::int64_t rows, bool backward);
  BlockActivations first_rows(std::int64_t rows) const;
};

/// Where a pass through the blocks leaves what it computes.
struct ForwardMemory {
  std::span<const BlockActivations> blocks;  // (L), or 1 that serves every layer; x_in is placed by the pass
  std::span<const View> x;                   // (L + 1) of (N, C) A, the residual stream before each block and after the last,
                                             // or 2 that take turns
};

/// The rows of a batch whose result is wanted.
struct WantedRows {
  const std::int32_t* rows = nullptr;  // (count) device memory
  std::int64_t count = 0;
  PagedPaths paths;                    // of these rows
};

/// The decoder stack of the Llama family: embedding and blocks, forward and backward. Knows no device.
class Decoder {
 public:
  /// `positions` is the longest path that will occur: the length of the RoPE table.
  Decoder(Backend& backend, const ModelConfig& config, std::int64_t positions);

  const ModelConfig& config() const { return config_; }
  Backend& backend() const { return backend_; }
  std::int64_t positions() const { return rope_.rows; }
  AttentionShape attention_shape(std::int64_t layer) const;

  void embed(const Weights& weights, const DeviceBatch& batch, View x) const;

  /// One block: x_out (N, C) A from a.x_in; fills `a`; keys and values go to the layer's `pages`.
  void block_forward(const Weights& weights, std::int64_t layer, const DeviceBatch& batch, void* pages, BlockActivations& a,
                     View x_out) const;

  /// Embedding and all blocks; layer l's pages lie at pages + l · layer_bytes (0: the layers share them). Returns the
  /// residual stream after the last block: of every row, or (M, C) of the wanted ones alone, in whose last block the others
  /// only leave their keys and values.
  View forward(const Weights& weights, const DeviceBatch& batch, void* pages, std::size_t layer_bytes,
               const ForwardMemory& memory, const Control& control, const WantedRows* wanted = nullptr) const;

  /// What block_forward computes without products and attention: fills rstd1, normed1, rstd2, normed2 and h from the rest.
  void block_restore(const Weights& weights, std::int64_t layer, const BlockActivations& a) const;

  /// Buffers of the backward pass, shared by all layers.
  struct Gradients {
    View dx_t;       // (N, C) T: the residual stream's gradient rounded for products; empty where T is A
    View dh;         // (N, F) T
    View dgate_up;   // (N, 2F) T
    View dnormed;    // (N, C) A
    View dattention; // (N, H·D) T
    View dq, dk, dv; // (N, H·D), (N, K·D), (N, K·D) A
    View dqkv;       // (N, (H + 2K)·D) T
    void lay_out(Arena& arena, const Backend& backend, const ModelConfig& config, std::int64_t rows);
    Gradients first_rows(std::int64_t rows) const;
    /// dx as products take it.
    View rounded(View dx) const { return dx_t ? dx_t : dx; }
  };

  /// dx (N, C) A: gradient of x_out on entry, of x_in on return; and g.dx_t its rounding, but for the first layer's return.
  /// Adds to the parameters' gradients.
  void block_backward(const Weights& weights, const ModelParameters& parameters, const ParameterStore& gradients,
                      std::int64_t layer, const DeviceBatch& batch, const PackedPaths& paths, const BlockActivations& a,
                      Gradients& g, View dx) const;

 private:
  void block_keys(const Weights& weights, std::int64_t layer, const DeviceBatch& batch, void* pages, BlockActivations& a) const;
  void block_rest(const Weights& weights, std::int64_t layer, View attention, View x_in, BlockActivations& a, View x_out) const;

  Backend& backend_;
  ModelConfig config_;
  Buffer rope_buffer_;
  View rope_;  // (positions, D) A
};

}  // namespace foretoken
