#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "backend/cuda/device/emulator.h"

namespace foretoken::cuda {

/// What a device was told to do while it recorded, ready to be queued as often as one likes: a CUDA graph.
class Recording {
 public:
  virtual ~Recording() = default;
  virtual void queue() = 0;
  virtual std::size_t bytes() const = 0;  // of device memory, as far as it is known
};

/// Where a CudaBackend's memory lies and its kernels run: a GPU, or the emulator on the host. Everything but allocation
/// happens in the order of the calls.
class Device {
 public:
  virtual ~Device() = default;
  virtual std::string name() const = 0;         // "cuda:0"
  virtual std::string description() const = 0;  // the GPU's name and memory
  virtual int multiprocessors() const = 0;
  virtual int compute_capability() const = 0;  // 10 · major + minor
  virtual std::size_t shared_bytes() const = 0;  // the most that a block can have
  virtual std::size_t available_memory() const = 0;  // bytes that can be allocated now

  virtual void* allocate(std::size_t bytes) = 0;  // 256-byte aligned; Error OutOfMemory with numbers
  /// Kernels that still use it were queued before; a recording must not use it any more.
  void release(void* data) noexcept {
    ++releases_;
    release_memory(data);
  }
  /// Releases so far: what was recorded when there were fewer may point to memory that is gone.
  std::uint64_t releases() const { return releases_; }
  virtual void upload(void* device, const void* host, std::size_t bytes) = 0;    // host memory is free on return
  virtual void download(void* host, const void* device, std::size_t bytes) = 0;  // complete on return
  virtual void synchronize() = 0;
  /// As Backend::start_download.
  virtual void start_download(const void* /*device*/, std::size_t /*bytes*/) {}
  /// rows · row_bytes bytes, rows stride_bytes apart, become 0.
  virtual void clear(void* data, std::size_t rows, std::size_t row_bytes, std::size_t stride_bytes) = 0;

  /// Until end_recording, launches and clears are written down and not done. Everything else is an error then, Internal,
  /// and so is all that comes after a release. Answers false where the device cannot record now.
  virtual bool begin_recording() = 0;
  /// Null where something went wrong in between.
  virtual std::unique_ptr<Recording> end_recording() = 0;

  /// What kernels are launched on: a cudaStream_t, or the Emulator.
  virtual void* stream() = 0;
  /// Before each launch; makes the device current for the calling thread of the operating system.
  virtual void enter() = 0;

 protected:
  virtual void release_memory(void* data) noexcept = 0;

 private:
  std::uint64_t releases_ = 0;
};

/// Host memory and the emulator, for tests. Blocks have as much shared memory as on Hopper, unless told otherwise.
std::unique_ptr<Device> make_host_device(ThreadOrder order, const std::string& name = "cuda-host",
                                         std::size_t shared_bytes = 227 * 1024);

// ---- The devices of a library that is opened at run time: GPUs (library/), or emulated ones in the library for tests.

inline constexpr int kAllDevices = -2, kFirstUsableDevice = -1;

struct DeviceSurvey {
  std::vector<int> usable;  // their indices
  std::string text;         // a line for each of them, or the sentence that says why there is none and what to do
};
/// Looks at all devices, at those up to the first that can be used, or at device `index`.
DeviceSurvey survey_devices(int index);

/// Device `index` or the first that can be used; throws DeviceUnavailable.
std::unique_ptr<Device> make_device(int index);

}  // namespace foretoken::cuda
