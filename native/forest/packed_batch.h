#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "forest/micro_batches.h"
#include "forest/slot_writes.h"

namespace foretoken {

/// A micro-batch laid out as packed rows, on the host: what `DeviceBatch` uploads.
struct PackedBatch {
  std::vector<std::int32_t> tokens;        // (N)
  std::vector<std::int32_t> positions;     // (N) depth in the forest
  std::vector<std::int64_t> forest_index;  // (N) index of the row's token in the forest

  std::vector<Run> runs;                   // (R) one per segment, a parent before its children, trees as neighbours
  std::vector<std::int32_t> trees;         // (trees + 1) first run of each tree
  std::vector<std::int64_t> path_begin;    // (R) where the run's path begins in path_rows
  std::vector<std::int32_t> path_rows;     // rows of positions 0, 1, … of each run's path
  std::int64_t longest_run = 0, longest_path = 0;

  std::vector<std::int32_t> tables;        // (R, table_stride) page of each block of each path
  std::int64_t table_stride = 0;
  std::int64_t pages = 0;                  // number of pages used, numbered from 0
  std::vector<SlotWrite> writes;           // keys and values of every page

  // The head works only on rows that predict something: head_rows[i] predicts the targets
  // [target_begin[i], target_begin[i + 1]), each the token at target_index of the forest.
  std::vector<std::int32_t> head_rows;     // (M) ascending
  std::vector<std::int32_t> target_begin;  // (M + 1)
  std::vector<std::int32_t> target_tokens;
  std::vector<std::int64_t> target_index;

  /// Whether another run's path goes on after this one's.
  bool has_children(std::size_t run) const {
    return run + 1 < runs.size() && runs[run + 1].position == runs[run].position + runs[run].count;
  }
  std::int64_t rows() const { return static_cast<std::int64_t>(tokens.size()); }
};

/// Lays out a micro-batch. Targets are the owned tokens for which `predicted` (forest tokens; empty: all) is true and that
/// have a prefix. `extra_rows` (forest token indices, sorted) get logits even without a target.
PackedBatch pack(const TokenForest& forest, const MicroBatch& batch, std::int64_t page_positions,
                 const std::vector<bool>& predicted, const std::vector<std::int32_t>& extra_rows = {});

}  // namespace foretoken
