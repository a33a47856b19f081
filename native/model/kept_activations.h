#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "backend/arena.h"
#include "forest/prefix_tree.h"
#include "forest/token_forest.h"
#include "model/decoder.h"

namespace foretoken {

/// What sampling has computed of its tokens, for the backward pass: sampler and trainer agree bit for bit, so tokens that
/// went through the network to be continued need not go through it once more to be learned from.
///
/// Rows are kept in the order in which they were computed, and found by the path of their token. Kept is what takes
/// products or attention to compute, logits too as far as there is room for them; the rest is done again
/// (Decoder::block_restore).
class KeptActivations {
 public:
  /// Rows of blocks' activations and of logits.
  struct Extent {
    std::int64_t rows = 0, logits = 0;
  };
  static std::size_t bytes_for(const Backend& backend, const ModelConfig& config, const Extent& extent);
  /// As much of `wanted` as fits into so many bytes, blocks' activations first: without them logits save little.
  static Extent fitting(const Backend& backend, const ModelConfig& config, const Extent& wanted, std::size_t bytes);

  /// Makes room and forgets all that was kept. Memory that is large enough stays.
  void reserve(Backend& backend, const ModelConfig& config, const Extent& extent);
  void release();
  std::size_t bytes() const { return buffer_.bytes(); }
  /// The weights have changed.
  void forget();

  // ---- sampling
  /// Where a pass over `rows` rows is to leave what it computes, or nothing when there is no room; `shared` serves what is
  /// not kept.
  std::optional<ForwardMemory> place(std::int64_t rows, const BlockActivations& shared);
  /// After the pass, for each of its rows in order: of `token` after the row `parent` (PrefixTree::kRoot: at the beginning,
  /// kAbsent: after one that is not kept). Returns the row that is kept for this path, which may be an earlier one with the
  /// same bits, or kAbsent.
  std::int32_t add(std::int32_t parent, std::int32_t token);
  /// The same for logits: a view (count, V), empty when there is no room, and the row that each of them belongs to.
  View place_logits(std::int64_t count);
  void add_logits(std::int32_t row);
  std::int64_t rows() const { return used_.rows; }

  // ---- training
  /// The row of each of the forest's tokens, or PrefixTree::kAbsent.
  std::vector<std::int32_t> rows_of(const TokenForest& forest) const;
  /// What is kept of a layer, at rows `index` (N) in device memory, into `a` of N rows.
  void restore(Backend& backend, std::int64_t layer, const std::int32_t* index, const BlockActivations& a) const;
  /// The residual stream after the last block at rows `index`, into x (N, C) A.
  void restore_output(Backend& backend, const std::int32_t* index, View x) const;
  /// Where the logits of a row are, or −1.
  std::int32_t logits_of(std::int32_t row) const { return logits_of_[row]; }
  /// Those at `index` (n) in device memory, into logits (n, V) A.
  void restore_logits(Backend& backend, const std::int32_t* index, View logits) const;

 private:
  void lay_out(Arena& arena, const Backend& backend, const ModelConfig& config, const Extent& extent);

  Buffer buffer_;
  Extent capacity_, used_, placed_;             // placed and not yet added
  PrefixTree tree_;
  std::vector<std::int32_t> logits_of_;         // (rows)
  std::vector<BlockActivations> blocks_;        // (L) of all rows; some views are empty
  std::vector<View> x_;                         // (L + 1)
  View logits_;
  std::vector<BlockActivations> placed_blocks_; // what place() has handed out
  std::vector<View> placed_x_;
};

}  // namespace foretoken
