#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

#include "backend/cuda/device/check.h"

namespace foretoken::cuda {

/// Downloads that begin before they are asked for: the copy into pinned memory takes its place in the stream, and whoever
/// comes for it waits for that copy alone.
class EarlyDownloads {
 public:
  explicit EarlyDownloads(cudaStream_t stream) : stream_(stream) {}
  EarlyDownloads(const EarlyDownloads&) = delete;
  ~EarlyDownloads() {
    for (const Slot& slot : slots_) {
      cudaEventDestroy(slot.copied);
      cudaFreeHost(slot.pinned);
    }
  }

  void start(const void* device, std::size_t bytes) {
    if (bytes == 0) return;
    for (Slot& slot : slots_)  // nobody has come for what was there before
      if (slot.device == device) slot.device = nullptr;
    Slot& slot = free_slot(bytes);
    check(cudaMemcpyAsync(slot.pinned, device, bytes, cudaMemcpyDeviceToHost, stream_), "start_download");
    check(cudaEventRecord(slot.copied, stream_), "start_download");
    slot.device = device;
    slot.bytes = bytes;
  }
  /// Whether the download had begun; then it is complete on return.
  bool finish(void* host, const void* device, std::size_t bytes) {
    for (Slot& slot : slots_)
      if (slot.device == device && slot.bytes == bytes) {
        check(cudaEventSynchronize(slot.copied), "download");
        std::memcpy(host, slot.pinned, bytes);
        slot.device = nullptr;
        return true;
      }
    return false;
  }
  /// After a release nobody knows what lies where; what has begun is downloaded anew when it is asked for.
  void forget() {
    for (Slot& slot : slots_) slot.device = nullptr;
  }

 private:
  struct Slot {
    const void* device = nullptr;  // null: free
    std::size_t bytes = 0, capacity = 0;
    std::byte* pinned = nullptr;
    cudaEvent_t copied = nullptr;
  };

  Slot& free_slot(std::size_t bytes) {
    for (Slot& slot : slots_)
      if (!slot.device && slot.capacity >= bytes) return slot;
    Slot slot;
    slot.capacity = std::max<std::size_t>(2 * bytes, 4096);
    check(cudaMallocHost(&slot.pinned, slot.capacity), "cudaMallocHost");
    if (const cudaError_t error = cudaEventCreateWithFlags(&slot.copied, cudaEventDisableTiming); error != cudaSuccess) {
      cudaFreeHost(slot.pinned);
      check(error, "cudaEventCreate");
    }
    slots_.push_back(slot);
    return slots_.back();
  }

  cudaStream_t stream_;
  std::vector<Slot> slots_;
};

}  // namespace foretoken::cuda
