#include <cstdlib>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#include "backend/cuda/device/device.h"
#include "core/available_memory.h"
#include "core/error.h"

namespace foretoken::cuda {

namespace {

class HostRecording final : public Recording {
 public:
  std::vector<std::function<void()>> work;
  void queue() override {
    for (const auto& step : work) step();
  }
  std::size_t bytes() const override { return work.size() * sizeof work[0]; }
};

/// As strict as a GPU about what may be called while it records.
class HostDevice final : public Device {
 public:
  HostDevice(ThreadOrder order, const std::string& name, std::size_t shared_bytes)
      : emulator_(order), name_(name), shared_bytes_(shared_bytes) {}
  std::string name() const override { return name_; }
  std::string description() const override { return "CUDA kernels emulated on the host"; }
  int multiprocessors() const override { return 2; }
  int compute_capability() const override { return 90; }
  std::size_t shared_bytes() const override { return shared_bytes_; }
  std::size_t available_memory() const override { return foretoken::available_memory(); }

  void* allocate(std::size_t bytes) override {
    refuse_while_recording("allocate");
    constexpr std::size_t alignment = 256;
    void* data = std::aligned_alloc(alignment, (bytes / alignment + 1) * alignment);
    if (!data) fail(ErrorCode::OutOfMemory, "the operating system refused ", bytes, " bytes for an emulated GPU");
    return data;
  }
  void upload(void* device, const void* host, std::size_t bytes) override {
    refuse_while_recording("upload");
    if (bytes) std::memcpy(device, host, bytes);
  }
  void download(void* host, const void* device, std::size_t bytes) override {
    refuse_while_recording("download");
    if (bytes) std::memcpy(host, device, bytes);
  }
  void synchronize() override { refuse_while_recording("synchronize"); }
  void start_download(const void*, std::size_t) override { refuse_while_recording("start_download"); }
  void clear(void* data, std::size_t rows, std::size_t row_bytes, std::size_t stride_bytes) override {
    enter();
    emulator_.queue([=] {
      for (std::size_t n = 0; n < rows && row_bytes; ++n)
        std::memset(static_cast<std::byte*>(data) + n * stride_bytes, 0, row_bytes);
    });
  }
  bool begin_recording() override {
    recording_ = std::make_unique<HostRecording>();
    emulator_.record(&recording_->work);
    return true;
  }
  std::unique_ptr<Recording> end_recording() override {
    emulator_.record(nullptr);
    if (std::exchange(spoilt_, false)) recording_.reset();
    return std::move(recording_);
  }
  void* stream() override { return &emulator_; }
  void enter() override {
    if (spoilt_) fail(ErrorCode::Internal, name_, ": memory was released while a sequence was recorded");
  }

 private:
  void release_memory(void* data) noexcept override {
    spoilt_ = recording_ != nullptr;
    std::free(data);
  }
  void refuse_while_recording(const char* what) const {
    if (recording_) fail(ErrorCode::Internal, name_, ": ", what, " was called while a sequence was recorded");
  }

  std::unique_ptr<HostRecording> recording_;  // while one is being made
  bool spoilt_ = false;
  Emulator emulator_;
  std::string name_;
  std::size_t shared_bytes_;
};

}  // namespace

std::unique_ptr<Device> make_host_device(ThreadOrder order, const std::string& name, std::size_t shared_bytes) {
  return std::make_unique<HostDevice>(order, name, shared_bytes);
}

}  // namespace foretoken::cuda
