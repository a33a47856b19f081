#include "rollout/context_cache.h"

#include <algorithm>

#include "core/error.h"

namespace foretoken {

ContextCache::ContextCache(const TokenForest& forest, std::int64_t page_positions)
    : forest_(forest), P_(page_positions), tables_(forest.segments().size()), users_(forest.segments().size(), 0) {}

std::int64_t ContextCache::pages_of(std::int32_t segment) const {
  const Segment& s = forest_.segments()[segment];
  const std::int64_t end = std::int64_t{s.start_position} + s.length;
  return (end + P_ - 1) / P_ - s.start_position / P_;
}

std::int64_t ContextCache::pages_needed(std::int32_t segment) const {
  std::int64_t pages = 0;
  for (std::int32_t up = segment; up >= 0 && users_[up] == 0; up = forest_.segments()[up].parent) pages += pages_of(up);
  return pages;
}

void ContextCache::acquire(std::int32_t segment, PagePool& pool, std::vector<std::int32_t>& absent) {
  std::vector<std::int32_t> path;
  for (std::int32_t up = segment; up >= 0; up = forest_.segments()[up].parent) path.push_back(up);
  for (auto s = path.rbegin(); s != path.rend(); ++s) {
    if (users_[*s]++ > 0) continue;
    const Segment& segment_now = forest_.segments()[*s];
    std::vector<std::int32_t>& table = tables_[*s];
    if (segment_now.parent >= 0) {
      const std::vector<std::int32_t>& parent = tables_[segment_now.parent];
      table.assign(parent.begin(), parent.begin() + segment_now.start_position / P_);
    }
    for (std::int64_t i = pages_of(*s); i-- > 0;) table.push_back(pool.take());
    absent.push_back(*s);
  }
}

void ContextCache::release(std::int32_t segment, PagePool& pool) {
  for (std::int32_t up = segment; up >= 0; up = forest_.segments()[up].parent) {
    invariant(users_[up] > 0, "a context is released as often as it is acquired");
    if (--users_[up] > 0) continue;
    std::vector<std::int32_t>& table = tables_[up];
    for (std::size_t block = static_cast<std::size_t>(forest_.segments()[up].start_position / P_); block < table.size(); ++block)
      pool.give_back(table[block]);
    table.clear();
  }
}

void ContextCache::add_rows(std::int32_t segment, std::int32_t begin, std::int32_t count, CachedBatch& batch,
                            std::vector<std::int32_t>& row_in_batch) const {
  const Segment& s = forest_.segments()[segment];
  const std::vector<std::int32_t>& table = tables_[segment];
  const auto write = [&](std::int32_t row, std::int64_t position) {
    batch.writes.push_back({row, static_cast<std::int32_t>(table[position / P_] * P_ + position % P_)});
  };
  if (begin == 0 && s.start_position % P_ != 0) {
    // The ancestors' part of the first page: rows of this batch are written again, older ones copied with their page.
    const std::int64_t block = s.start_position / P_;
    // Rows of earlier passes come before those of this one, so the last older row's segment has all older lanes in its page.
    std::int32_t older = -1, up = s.parent;
    for (std::int64_t position = s.start_position; position-- > block * P_;) {
      while (forest_.segments()[up].start_position > position) up = forest_.segments()[up].parent;
      const std::int32_t row = row_in_batch[forest_.segments()[up].begin + position - forest_.segments()[up].start_position];
      if (row >= 0) write(row, position); else if (older < 0) older = up;
    }
    if (older >= 0) {
      batch.copy_from.push_back(tables_[older][block]);
      batch.copy_to.push_back(table[block]);
    }
  }
  const auto first = static_cast<std::int32_t>(batch.tokens.size());
  batch.runs.push_back({first, count, s.start_position + begin, static_cast<std::int32_t>(batch.tables.size())});
  batch.tables.push_back(table);
  for (std::int32_t i = begin; i < begin + count; ++i) {
    const std::int64_t token = s.begin + i;
    const auto row = static_cast<std::int32_t>(batch.tokens.size());
    row_in_batch[token] = row;
    batch.tokens.push_back(forest_.tokens()[token]);
    batch.positions.push_back(s.start_position + i);
    write(row, s.start_position + i);
  }
}

}  // namespace foretoken
