#include <cstdlib>

#include "backend/cuda/attention_choice.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/device/launch.h"

namespace foretoken::cuda {

CudaBackend::CudaBackend(std::unique_ptr<Device> device, DType dtype, bool allow_tf32)
    : device_(std::move(device)), dtype_(dtype) {
  if (dtype != DType::Float32 && dtype != DType::BFloat16)
    fail(ErrorCode::InvalidArgument, "the GPU computes in float32 or bfloat16, not in ", name_of(dtype));
  library_ = open_matmul_library(*device_, allow_tf32 && dtype == DType::Float32);
  const char* graphs = std::getenv("FORETOKEN_CUDA_GRAPHS");
  const std::string wish = graphs ? graphs : "1";
  if (wish != "0" && wish != "1") fail(ErrorCode::InvalidArgument, "FORETOKEN_CUDA_GRAPHS is \"", wish, "\"; it can be 0 or 1");
  if (wish == "1") recordings_ = std::make_unique<Recordings>(*device_);
  warpgroup_attention_ = chooses_warpgroup_attention(*device_);
}

CudaBackend::~CudaBackend() {
  if (scratch_) device_->release(scratch_);
}

std::size_t CudaBackend::scratch_bytes() const {
  return scratch_bytes_ + (library_ ? library_->workspace_bytes() : 0) + (recordings_ ? recordings_->bytes() : 0);
}

std::string CudaBackend::description() const {
  return device_->description() + ", " + name_of(dtype_) + ", products by " + (library_ ? library_->name() : "our own kernels") +
         (warpgroup_attention_ ? ", attention by wgmma" : "");
}

void* CudaBackend::scratch(std::size_t bytes) {
  if (bytes > scratch_bytes_) {
    if (scratch_) device_->release(scratch_);
    scratch_ = nullptr;
    scratch_bytes_ = 0;
    scratch_ = device_->allocate(bytes);
    scratch_bytes_ = bytes;
  }
  return scratch_;
}

void CudaBackend::fill_zero(View x) {
  if (x.elements() == 0) return;
  const std::size_t size = size_of(x.dtype);
  if (x.contiguous()) device_->clear(x.data, 1, static_cast<std::size_t>(x.elements()) * size, 0);
  else
    device_->clear(x.data, static_cast<std::size_t>(x.rows), static_cast<std::size_t>(x.cols) * size,
                   static_cast<std::size_t>(x.stride) * size);
}

}  // namespace foretoken::cuda
