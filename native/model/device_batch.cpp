#include "model/device_batch.h"

namespace foretoken {

namespace {
template <typename T>
const T* put(DeviceArray<T>& array, Backend& backend, const std::vector<T>& values) {
  return array.assign(backend, std::span<const T>(values));
}
}  // namespace

void UploadedBatch::assign(Backend& backend, const PackedBatch& packed) {
  batch_.rows = packed.rows();
  batch_.tokens = put(tokens_, backend, packed.tokens);
  batch_.positions = put(positions_, backend, packed.positions);
  batch_.paths.runs = paths_.runs = put(runs_, backend, packed.runs);
  batch_.paths.runs_count = paths_.runs_count = static_cast<std::int64_t>(packed.runs.size());
  batch_.paths.longest_run = packed.longest_run;
  batch_.paths.tables = put(tables_, backend, packed.tables);
  batch_.paths.table_stride = packed.table_stride;
  batch_.paths.longest_path = paths_.longest_path = packed.longest_path;
  const RowSlots writes = slots_by_row(packed.writes, packed.rows());
  batch_.writes = {put(write_begin_, backend, writes.row_begin), put(write_slots_, backend, writes.slots)};
  paths_.trees = put(trees_, backend, packed.trees);
  paths_.trees_count = static_cast<std::int64_t>(packed.trees.size()) - 1;
  paths_.path_begin = put(path_begin_, backend, packed.path_begin);
  paths_.path_rows = put(path_rows_, backend, packed.path_rows);
  put(head_rows_, backend, packed.head_rows);
  put(target_begin_, backend, packed.target_begin);
  put(target_tokens_, backend, packed.target_tokens);
}

Targets UploadedBatch::targets(std::int64_t begin) const {
  return {target_begin_.data() + begin, target_tokens_.data(), static_cast<std::int64_t>(target_tokens_.size())};
}

std::size_t UploadedBatch::bytes() const {
  return tokens_.bytes() + positions_.bytes() + trees_.bytes() + path_rows_.bytes() + tables_.bytes() + write_begin_.bytes() +
         write_slots_.bytes() + head_rows_.bytes() + target_begin_.bytes() + target_tokens_.bytes() +
         path_begin_.bytes() + runs_.bytes();
}

}  // namespace foretoken
