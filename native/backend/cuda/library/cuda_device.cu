#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "backend/cuda/device/check.h"
#include "backend/cuda/device/device.h"
#include "backend/cuda/library/early_downloads.h"
#include "backend/cuda/library/staging.h"

namespace foretoken::cuda {

namespace {

std::string megabytes(std::size_t bytes) { return std::to_string(bytes >> 20) + " MB"; }

/// A captured stream, instantiated.
class CudaGraph final : public Recording {
 public:
  CudaGraph(cudaStream_t stream, cudaGraphExec_t graph, std::size_t bytes) : stream_(stream), graph_(graph), bytes_(bytes) {}
  CudaGraph(const CudaGraph&) = delete;
  ~CudaGraph() override {
    cudaStreamSynchronize(stream_);  // it may be running
    cudaGraphExecDestroy(graph_);
  }
  void queue() override { check(cudaGraphLaunch(graph_, stream_), "cudaGraphLaunch"); }
  std::size_t bytes() const override { return bytes_; }

 private:
  cudaStream_t stream_;
  cudaGraphExec_t graph_;
  std::size_t bytes_;
};

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(int index) : index_(index) {
    enter();
    cudaDeviceProp facts;
    check(cudaGetDeviceProperties(&facts, index), "cudaGetDeviceProperties");
    multiprocessors_ = facts.multiProcessorCount;
    compute_capability_ = 10 * facts.major + facts.minor;
    shared_bytes_ = facts.sharedMemPerBlockOptin;
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
  std::size_t shared_bytes() const override { return shared_bytes_; }
  std::size_t available_memory() const override {
    check(cudaSetDevice(index_), "cudaSetDevice");
    std::size_t available = 0, total = 0;
    check(cudaMemGetInfo(&available, &total), "cudaMemGetInfo");
    return available;
  }

  void* allocate(std::size_t bytes) override {
    enter_outside("allocate");
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
  void upload(void* device, const void* host, std::size_t bytes) override {
    if (bytes == 0) return;
    enter_outside("upload");
    staging_->upload(device, host, bytes);
  }
  void start_download(const void* device, std::size_t bytes) override {
    enter_outside("start_download");
    early_downloads_->start(device, bytes);
  }
  void download(void* host, const void* device, std::size_t bytes) override {
    enter_outside("download");
    if (early_downloads_->finish(host, device, bytes)) return;
    if (bytes) check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_), "download");
    check(cudaStreamSynchronize(stream_), "download");
  }
  void synchronize() override {
    enter_outside("synchronize");
    check(cudaStreamSynchronize(stream_), "synchronize");
  }
  void clear(void* data, std::size_t rows, std::size_t row_bytes, std::size_t stride_bytes) override {
    if (rows == 0 || row_bytes == 0) return;
    enter();
    if (rows == 1) check(cudaMemsetAsync(data, 0, row_bytes, stream_), "cudaMemsetAsync");
    else check(cudaMemset2DAsync(data, stride_bytes, 0, row_bytes, rows, stream_), "cudaMemset2DAsync");
  }

  // Of this thread alone: other engines of the process may allocate meanwhile.
  bool begin_recording() override {
    enter();
    if (cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal) != cudaSuccess) {
      cudaGetLastError();
      return false;
    }
    capture_ = Capture::UnderWay;
    return true;
  }
  std::unique_ptr<Recording> end_recording() override {
    cudaGraph_t graph = std::exchange(capture_, Capture::None) == Capture::UnderWay ? end_capture() : nullptr;
    if (!graph) return nullptr;
    std::size_t before = 0, after = 0, total = 0;
    cudaMemGetInfo(&before, &total);
    cudaGraphExec_t executable = nullptr;
    const bool made = cudaGraphInstantiate(&executable, graph, 0) == cudaSuccess;
    cudaGraphDestroy(graph);
    if (!made) {
      cudaGetLastError();
      return nullptr;
    }
    // At once, or the first launch would be what fails when memory is short.
    const bool uploaded = cudaGraphUpload(executable, stream_) == cudaSuccess;
    if (!uploaded) cudaGetLastError();
    cudaMemGetInfo(&after, &total);
    auto recording = std::make_unique<CudaGraph>(stream_, executable, before > after ? before - after : 0);
    return uploaded ? std::move(recording) : nullptr;
  }

  void* stream() override { return stream_; }
  void enter() override {
    if (capture_ == Capture::Spoilt) fail(ErrorCode::Internal, name(), ": memory was released while a sequence was recorded");
    check(cudaSetDevice(index_), "cudaSetDevice");
  }

 private:
  enum class Capture { None, UnderWay, Spoilt };

  void release_memory(void* data) noexcept override {
    if (cudaSetDevice(index_) != cudaSuccess) return;
    if (capture_ == Capture::UnderWay) {  // nothing that follows may run, as what it needs has not
      if (cudaGraph_t graph = end_capture()) cudaGraphDestroy(graph);
      capture_ = Capture::Spoilt;
    }
    cudaStreamSynchronize(stream_);
    early_downloads_->forget();
    cudaFree(data);
  }
  /// enter() for what may not be called while a sequence is recorded.
  void enter_outside(const char* what) {
    enter();
    if (capture_ != Capture::None) fail(ErrorCode::Internal, name(), ": ", what, " was called while a sequence was recorded");
  }
  /// Null where something in between was not to be captured; the next launch must not report that.
  cudaGraph_t end_capture() noexcept {
    cudaGraph_t graph = nullptr;
    if (cudaStreamEndCapture(stream_, &graph) == cudaSuccess) return graph;
    cudaGetLastError();
    return nullptr;
  }

  int index_;
  int multiprocessors_ = 0, compute_capability_ = 0;
  std::size_t shared_bytes_ = 0;
  std::string description_;
  cudaStream_t stream_ = nullptr;
  Capture capture_ = Capture::None;
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
