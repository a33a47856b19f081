#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace foretoken {

/// A row of a batch whose keys and values go to a slot: lane slot mod P of page slot / P.
struct SlotWrite {
  std::int32_t row, slot;
};

/// The slots of each row, one row after the other: what `CacheWrites` has in device memory.
struct RowSlots {
  std::vector<std::int32_t> row_begin;  // (rows + 1)
  std::vector<std::int32_t> slots;
};

/// `writes` may come in any order; those of one row keep theirs.
RowSlots slots_by_row(std::span<const SlotWrite> writes, std::int64_t rows);

}  // namespace foretoken
