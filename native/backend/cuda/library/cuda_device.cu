#include <algorithm>
#include <optional>

#include "backend/cuda/device/check.h"
#include "backend/cuda/device/device.h"
#include "backend/cuda/library/early_downloads.h"
#include "backend/cuda/library/staging.h"

namespace foretoken::cuda {

namespace {

std::string megabytes(std::size_t bytes) { return std::to_string(bytes >> 20) + " MB"; }

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(int index) : index_(index) {
    enter();
    cudaDeviceProp facts;
    check(cudaGetDeviceProperties(&facts, index), "cudaGetDeviceProperties");
    multiprocessors_ = facts.multiProcessorCount;
    compute_capability_ = 10 * facts.major + facts.minor;
    int driver = 0;
    check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
    description_ = std::string(facts.name) + ", " + megabytes(facts.totalGlobalMem) + ", CUDA " +
                   std::to_string(driver / 1000) + '.' + std::to_string(driver % 1000 / 10);
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    staging_.emplace(stream_);
    early_downloads_.emplace(stream_);
  }
  ~CudaDevice() override {
    if (cudaSetDevice(index_) != cudaSuccess) return;
    cudaStreamSynchronize(stream_);
    staging_.reset();
    early_downloads_.reset();
    cudaStreamDestroy(stream_);
  }

  std::string name() const override { return "cuda:" + std::to_string(index_); }
  std::string description() const override { return description_; }
  int multiprocessors() const override { return multiprocessors_; }
  int compute_capability() const override { return compute_capability_; }
  std::size_t available_memory() const override {
    check(cudaSetDevice(index_), "cudaSetDevice");
    std::size_t available = 0, total = 0;
    check(cudaMemGetInfo(&available, &total), "cudaMemGetInfo");
    return available;
  }

  void* allocate(std::size_t bytes) override {
    enter();
    void* data = nullptr;
    const cudaError_t error = cudaMalloc(&data, std::max<std::size_t>(bytes, 1));
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // or the next launch would report it
      fail(ErrorCode::OutOfMemory, name(), " refused ", megabytes(bytes), "; ", megabytes(available_memory()),
           " are free. What helps: a smaller batchTokens, recompute, a smaller cacheTokens or maxSequences, dtype "
           "bfloat16, stateDtype bfloat16, or ending other programs that use this GPU");
    }
    check(error, "cudaMalloc");
    return data;
  }
  void release(void* data) noexcept override {
    // Kernels that still use it were queued before.
    if (cudaSetDevice(index_) != cudaSuccess) return;
    cudaStreamSynchronize(stream_);
    early_downloads_->forget();
    cudaFree(data);
  }
  void upload(void* device, const void* host, std::size_t bytes) override {
    if (bytes == 0) return;
    enter();
    staging_->upload(device, host, bytes);
  }
  void start_download(const void* device, std::size_t bytes) override {
    enter();
    early_downloads_->start(device, bytes);
  }
  void download(void* host, const void* device, std::size_t bytes) override {
    enter();
    if (early_downloads_->finish(host, device, bytes)) return;
    if (bytes) check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_), "download");
    check(cudaStreamSynchronize(stream_), "download");
  }
  void synchronize() override {
    enter();
    check(cudaStreamSynchronize(stream_), "synchronize");
  }
  void clear(void* data, std::size_t rows, std::size_t row_bytes, std::size_t stride_bytes) override {
    if (rows == 0 || row_bytes == 0) return;
    enter();
    if (rows == 1) check(cudaMemsetAsync(data, 0, row_bytes, stream_), "cudaMemsetAsync");
    else check(cudaMemset2DAsync(data, stride_bytes, 0, row_bytes, rows, stream_), "cudaMemset2DAsync");
  }

  void* stream() override { return stream_; }
  void enter() override { check(cudaSetDevice(index_), "cudaSetDevice"); }

 private:
  int index_;
  int multiprocessors_ = 0, compute_capability_ = 0;
  std::string description_;
  cudaStream_t stream_ = nullptr;
  std::optional<Staging> staging_;
  std::optional<EarlyDownloads> early_downloads_;
};

}  // namespace

std::unique_ptr<Device> make_device(int index) {
  const DeviceSurvey survey = survey_devices(index);
  if (survey.usable.empty()) fail(ErrorCode::DeviceUnavailable, survey.text);
  return std::make_unique<CudaDevice>(survey.usable.front());
}

}  // namespace foretoken::cuda
