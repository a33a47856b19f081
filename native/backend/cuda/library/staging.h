#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>

#include "backend/cuda/device/check.h"

namespace foretoken::cuda {

/// Uploads that do not wait for the device: they are copied into pinned memory, from which the GPU fetches them in the
/// stream's order. The memory is a ring of two halves; a half is written again when its last copy has been made, so only
/// who uploads more than the ring holds ever waits.
class Staging {
 public:
  explicit Staging(cudaStream_t stream) : stream_(stream) {
    check(cudaMallocHost(&ring_, 2 * kHalf), "cudaMallocHost");
    for (cudaEvent_t& copied : copied_) {
      check(cudaEventCreateWithFlags(&copied, cudaEventDisableTiming), "cudaEventCreate");
    }
  }
  Staging(const Staging&) = delete;
  ~Staging() {
    for (cudaEvent_t copied : copied_) cudaEventDestroy(copied);
    cudaFreeHost(ring_);
  }

  void upload(void* device, const void* host, std::size_t bytes) {
    for (std::size_t done = 0; done < bytes; done += kPiece)
      upload_piece(static_cast<std::byte*>(device) + done, static_cast<const std::byte*>(host) + done, std::min(kPiece, bytes - done));
  }

 private:
  void upload_piece(void* device, const void* host, std::size_t bytes) {
    const std::size_t room = (bytes + 255) / 256 * 256;
    if (used_ + room > kHalf) {
      check(cudaEventRecord(copied_[half_], stream_), "upload");
      half_ = 1 - half_;
      used_ = 0;
      check(cudaEventSynchronize(copied_[half_]), "upload");
    }
    std::byte* place = ring_ + half_ * kHalf + used_;
    used_ += room;
    std::memcpy(place, host, bytes);
    check(cudaMemcpyAsync(device, place, bytes, cudaMemcpyHostToDevice, stream_), "upload");
  }

  static constexpr std::size_t kHalf = std::size_t{4} << 20, kPiece = kHalf / 2;

  cudaStream_t stream_;
  std::byte* ring_ = nullptr;
  cudaEvent_t copied_[2] = {};
  std::size_t half_ = 0, used_ = 0;
};

}  // namespace foretoken::cuda
