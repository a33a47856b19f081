#include "forest/slot_writes.h"

#include <numeric>

namespace foretoken {

RowSlots slots_by_row(std::span<const SlotWrite> writes, std::int64_t rows) {
  RowSlots result;
  result.row_begin.assign(static_cast<std::size_t>(rows) + 1, 0);
  for (const SlotWrite& write : writes) ++result.row_begin[write.row + 1];
  std::partial_sum(result.row_begin.begin(), result.row_begin.end(), result.row_begin.begin());
  result.slots.resize(writes.size());
  std::vector<std::int32_t> next(result.row_begin);
  for (const SlotWrite& write : writes) result.slots[next[write.row]++] = write.slot;
  return result;
}

}  // namespace foretoken
