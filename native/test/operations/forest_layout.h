#pragma once

#include <cstdint>
#include <vector>

#include "forest/slot_writes.h"
#include "test/operations/harness.h"

namespace foretoken::test {

/// A forest as lists: segment s has lengths[s] tokens and hangs off parents[s] (−1: a root). Trees one after the other.
struct SmallForest {
  std::vector<int> parents;
  std::vector<int> lengths;
};

/// The same paths as roots of their own: root s is the whole path to the end of segment s.
/// rows[i] is the row of the forest that row i repeats.
struct Flattened {
  SmallForest forest;
  std::vector<std::int32_t> rows;
};
Flattened flatten(const SmallForest& forest);

struct LayoutOptions {
  bool shared = true;         // full pages of a parent serve its children; else every path has pages of its own
  int longest_run = 1 << 30;  // segments are cut into runs of at most so many rows
  std::uint32_t seed = 1;     // of the pages' numbers
};

/// Everything attention wants to know about a forest, with pages numbered at random. Unused table entries are −1.
struct Layout {
  std::int64_t rows = 0;
  std::vector<Run> runs;
  std::int64_t longest_run = 0, longest_path = 0;
  std::vector<std::int32_t> tables;
  std::int64_t table_stride = 0;
  std::int64_t pages = 0;
  std::vector<SlotWrite> writes;
  std::vector<std::int32_t> trees;
  std::vector<std::int64_t> path_begin;
  std::vector<std::int32_t> path_rows;
};
Layout lay_out(const SmallForest& forest, std::int64_t page_positions, const LayoutOptions& options = {});

/// Keys and values (N, K·D) into pages, as they are: through a rotation by nothing.
void fill_pages(Workbench& bench, const AttentionShape& shape, const Values& k, const Values& v,
                const std::vector<SlotWrite>& writes, void* pages);

}  // namespace foretoken::test
