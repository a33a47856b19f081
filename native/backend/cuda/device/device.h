#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "backend/cuda/device/emulator.h"

namespace foretoken::cuda {

/// Where a CudaBackend's memory lies and its kernels run: a GPU, or the emulator on the host. Everything but allocation
/// happens in the order of the calls.
class Device {
 public:
  virtual ~Device() = default;
  virtual std::string name() const = 0;         // "cuda:0"
  virtual std::string description() const = 0;  // the GPU's name and memory
  virtual int multiprocessors() const = 0;
  virtual int compute_capability() const = 0;  // 10 · major + minor
  virtual std::size_t available_memory() const = 0;  // bytes that can be allocated now

  virtual void* allocate(std::size_t bytes) = 0;  // 256-byte aligned; Error OutOfMemory with numbers
  virtual void release(void* data) noexcept = 0;
  virtual void upload(void* device, const void* host, std::size_t bytes) = 0;    // host memory is free on return
  virtual void download(void* host, const void* device, std::size_t bytes) = 0;  // complete on return
  virtual void synchronize() = 0;
  /// As Backend::start_download.
  virtual void start_download(const void* /*device*/, std::size_t /*bytes*/) {}
  /// rows · row_bytes bytes, rows stride_bytes apart, become 0.
  virtual void clear(void* data, std::size_t rows, std::size_t row_bytes, std::size_t stride_bytes) = 0;

  /// What kernels are launched on: a cudaStream_t, or the Emulator.
  virtual void* stream() = 0;
  /// Makes the device current for the calling thread of the operating system; before each launch.
  virtual void enter() {}
};

/// Host memory and the emulator, for tests.
std::unique_ptr<Device> make_host_device(ThreadOrder order, const std::string& name = "cuda-host");

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
