#include <cstdlib>
#include <cstring>

#include "backend/cuda/device/device.h"
#include "core/available_memory.h"
#include "core/error.h"

namespace foretoken::cuda {

namespace {

class HostDevice final : public Device {
 public:
  HostDevice(ThreadOrder order, const std::string& name) : emulator_(order), name_(name) {}
  std::string name() const override { return name_; }
  std::string description() const override { return "CUDA kernels emulated on the host"; }
  int multiprocessors() const override { return 2; }
  int compute_capability() const override { return 90; }
  std::size_t available_memory() const override { return foretoken::available_memory(); }

  void* allocate(std::size_t bytes) override {
    constexpr std::size_t alignment = 256;
    void* data = std::aligned_alloc(alignment, (bytes / alignment + 1) * alignment);
    if (!data) fail(ErrorCode::OutOfMemory, "the operating system refused ", bytes, " bytes for an emulated GPU");
    return data;
  }
  void release(void* data) noexcept override { std::free(data); }
  void upload(void* device, const void* host, std::size_t bytes) override {
    if (bytes) std::memcpy(device, host, bytes);
  }
  void download(void* host, const void* device, std::size_t bytes) override {
    if (bytes) std::memcpy(host, device, bytes);
  }
  void synchronize() override {}
  void clear(void* data, std::size_t rows, std::size_t row_bytes, std::size_t stride_bytes) override {
    for (std::size_t n = 0; n < rows && row_bytes; ++n)
      std::memset(static_cast<std::byte*>(data) + n * stride_bytes, 0, row_bytes);
  }
  void* stream() override { return &emulator_; }

 private:
  Emulator emulator_;
  std::string name_;
};

}  // namespace

std::unique_ptr<Device> make_host_device(ThreadOrder order, const std::string& name) {
  return std::make_unique<HostDevice>(order, name);
}

}  // namespace foretoken::cuda
