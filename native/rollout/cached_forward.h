#pragma once

#include "core/control.h"
#include "model/decoder.h"
#include "model/head.h"
#include "rollout/context_cache.h"

namespace foretoken {

/// Buffers of a forward pass over the store.
struct CachedForwardMemory {
  View x[2];               // (N, C) A
  BlockActivations block;
  Head::Buffers head;

  void lay_out(Arena& arena, const Backend& backend, const ModelConfig& config, std::int64_t rows, std::int64_t head_rows);
};

/// Runs batches through the network with keys and values in the store: prefill and decode are the same pass.
class CachedForward {
 public:
  CachedForward(Backend& backend, const Decoder& decoder, const Head& head, const Weights& weights, const PageStore& store,
                const CachedForwardMemory& memory)
      : backend_(backend), decoder_(decoder), head_(head), weights_(weights), store_(store), memory_(memory) {}

  /// Embedding and blocks; afterwards `logits` may be asked for any of the batch's head rows.
  void run(const CachedBatch& batch, const Control& control);
  /// Logits (count, V) of head rows [begin, begin + count), at most as many as the memory was laid out for.
  View logits(std::int64_t begin, std::int64_t count);
  std::int64_t chunk_rows() const { return memory_.head.logits.rows; }

 private:
  Backend& backend_;
  const Decoder& decoder_;
  const Head& head_;
  const Weights& weights_;
  const PageStore& store_;
  const CachedForwardMemory& memory_;
  View x_;  // (N, C) A: the residual stream after the last block
  DeviceArray<std::int32_t> tokens_, token_from_, selected_tokens_, positions_, tables_, write_begin_, write_slots_, copy_from_,
      copy_to_, head_rows_, wanted_rows_;
  DeviceArray<Run> runs_, wanted_runs_;
};

}  // namespace foretoken
