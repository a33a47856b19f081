#pragma once

#include "backend/arena.h"
#include "core/control.h"
#include "model/decoder.h"
#include "model/head.h"
#include "model/kept_activations.h"
#include "rollout/context_cache.h"

namespace foretoken {

/// What a step of decoding is given, array by array (decode_step.cpp).
struct DecodeInputs {
  SampleRow* draws = nullptr;           // (N)
  Run* runs = nullptr;                  // (N)
  std::int32_t *tokens = nullptr, *token_from = nullptr, *positions = nullptr, *slots = nullptr;  // (N)
  std::int32_t* in_order = nullptr;     // (N + 1): 0, 1, …
  std::int32_t* tables = nullptr;       // (N, table_stride)

  static DecodeInputs lay_out(Arena& arena, std::int64_t rows, std::int64_t table_stride);
};

/// Rows of the passes over the store.
struct CachedForwardRows {
  std::int64_t rows = 0;          // at once
  std::int64_t head_rows = 0;     // of which logits are wanted
  std::int64_t sequences = 0;     // decoded at once
  std::int64_t longest_path = 0;  // positions
};

/// Buffers of a forward pass over the store.
struct CachedForwardMemory {
  View x[2];               // (N, C) A
  BlockActivations block;
  Head::Buffers head;
  std::int64_t decode_rows = 0;             // at most, of a step of decoding
  void* decode_inputs = nullptr;            // DecodeInputs
  std::int32_t* decode_tokens = nullptr;    // (decode_rows) as select_tokens leaves them

  void lay_out(Arena& arena, const Backend& backend, const ModelConfig& config, const CachedForwardRows& rows);
  ForwardMemory forward() const { return {{&block, 1}, x}; }
};

/// Runs batches of whole segments through the network with keys and values in the store: prefill.
class CachedForward {
 public:
  CachedForward(Backend& backend, const Decoder& decoder, const Head& head, const Weights& weights, const PageStore& store,
                const CachedForwardMemory& memory)
      : backend_(backend), decoder_(decoder), head_(head), weights_(weights), store_(store), memory_(memory) {}

  /// Embedding and blocks; afterwards `logits` may be asked for any of the batch's head rows. Leaves the activations in
  /// `kept`, if any.
  void run(const CachedBatch& batch, KeptActivations* kept, const Control& control);
  /// Logits (count, V) of head rows [begin, begin + count), at most as many as the memory was laid out for; in `kept`, if any.
  View logits(std::int64_t begin, std::int64_t count, KeptActivations* kept);
  std::int64_t chunk_rows() const { return memory_.head.logits.rows; }

 private:
  Backend& backend_;
  const Decoder& decoder_;
  const Head& head_;
  const Weights& weights_;
  const PageStore& store_;
  const CachedForwardMemory& memory_;
  View x_;  // (N, C) A: the residual stream after the last block
  DeviceArray<std::int32_t> tokens_, positions_, tables_, write_begin_, write_slots_, copy_from_, copy_to_, head_rows_,
      wanted_rows_;
  DeviceArray<Run> runs_, wanted_runs_;
};

}  // namespace foretoken
