#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "forest/slot_writes.h"
#include "forest/token_forest.h"
#include "model/decoder.h"
#include "rollout/page_pool.h"

namespace foretoken {

/// The store of keys and values: `pages` pages in each layer.
struct PageStore {
  void* data = nullptr;
  std::size_t layer_bytes = 0;
  std::int64_t page_positions = 0;  // P
  std::int32_t spare_page = 0;      // one beyond them, of rows that fill up a batch; where the backend records sequences
};

/// The rows of one forward pass over the store, on the host.
struct CachedBatch {
  std::vector<std::int32_t> tokens, positions;
  std::vector<Run> runs;
  std::vector<std::vector<std::int32_t>> tables;  // one per run
  std::vector<SlotWrite> writes;
  std::vector<std::int32_t> copy_from, copy_to;   // whole pages, before the pass
  std::vector<std::int32_t> head_rows;            // rows whose logits are wanted

  std::int64_t rows() const { return static_cast<std::int64_t>(tokens.size()); }
};

/// Which pages hold which segment of the forest, and since when.
///
/// A segment owns the pages from the block that it begins in; earlier blocks of its path are its ancestors'.
/// If it begins inside a block, its first page begins with a copy of what its ancestors have there, so that every
/// block of every path is one page.
class ContextCache {
 public:
  ContextCache(const TokenForest& forest, std::int64_t page_positions);

  /// Pages that the segment and its absent ancestors would take.
  std::int64_t pages_needed(std::int32_t segment) const;
  /// One more user of the segment and its ancestors: absent ones get their pages and join `absent`, ancestors first.
  void acquire(std::int32_t segment, PagePool& pool, std::vector<std::int32_t>& absent);
  /// One user less; pages that no user needs go back.
  void release(std::int32_t segment, PagePool& pool);

  /// Adds rows [begin, begin + count) of an acquired segment to a batch; whole segments and their first parts in order,
  /// ancestors before descendants. `row_in_batch` (forest tokens) tells where in this batch a token's row is, or -1.
  void add_rows(std::int32_t segment, std::int32_t begin, std::int32_t count, CachedBatch& batch,
                std::vector<std::int32_t>& row_in_batch) const;

  const std::vector<std::int32_t>& table(std::int32_t segment) const { return tables_[segment]; }
  std::int64_t pages_of(std::int32_t segment) const;

 private:
  const TokenForest& forest_;
  std::int64_t P_;
  std::vector<std::vector<std::int32_t>> tables_;  // (S) pages of the whole path, empty while absent
  std::vector<std::int32_t> users_;                // (S)
};

}  // namespace foretoken
