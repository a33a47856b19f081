#pragma once

#include <cuda_runtime_api.h>

#include "core/error.h"

namespace foretoken::cuda {

/// Throws when a call of the CUDA runtime failed; `what` names the call or the kernel.
inline void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // or the next launch would report it once more
  if (error == cudaErrorMemoryAllocation)
    fail(ErrorCode::OutOfMemory, "the GPU's memory is full (", what, "); a smaller batchTokens, recompute, a smaller "
         "cacheTokens or stateDtype bfloat16 would need less");
  fail(ErrorCode::Internal, "the GPU reports: ", cudaGetErrorString(error), " (", what, ')');
}

}  // namespace foretoken::cuda
