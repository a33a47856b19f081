#pragma once

#include <cstdint>
#include <vector>

#include "forest/token_forest.h"

namespace foretoken {

/// The segments that go through the network together: whole trees or parts of one, each segment after its parent.
struct MicroBatch {
  struct Entry {
    std::int32_t segment;
    bool owned;  // false: here only as context of others; its own targets belong to an earlier micro-batch
  };
  std::vector<Entry> entries;
  std::int64_t tokens = 0;
};

/// Cuts a forest into micro-batches of at most `budget` tokens, in depth-first order.
///
/// Only segments marked in `wanted` (S; empty: all) and their ancestors appear; each wanted segment is owned once.
/// A tree larger than the budget is cut between its branches, and the shared ancestors are repeated; a single path
/// larger than the budget is still taken whole.
std::vector<MicroBatch> plan_micro_batches(const TokenForest& forest, const std::vector<bool>& wanted, std::int64_t budget);

}  // namespace foretoken
