#pragma once

#include "forest/packed_batch.h"
#include "model/decoder.h"

namespace foretoken {

/// A packed batch's arrays in device memory; reused from one micro-batch to the next.
class UploadedBatch {
 public:
  void assign(Backend& backend, const PackedBatch& packed);

  const DeviceBatch& batch() const { return batch_; }
  const PackedPaths& paths() const { return paths_; }
  const std::int32_t* head_rows() const { return head_rows_.data(); }
  /// Targets of the head rows from `begin` on; offsets stay those of the whole batch.
  Targets targets(std::int64_t begin) const;
  std::size_t bytes() const;

 private:
  DeviceArray<std::int32_t> tokens_, positions_, trees_, path_rows_, tables_, write_begin_, write_slots_, head_rows_,
      target_begin_, target_tokens_;
  DeviceArray<std::int64_t> path_begin_;
  DeviceArray<Run> runs_;
  DeviceBatch batch_;
  PackedPaths paths_;
};

}  // namespace foretoken
