#pragma once

#include "backend/cuda/matmul.h"

namespace foretoken::cuda {

/// Products by CUTLASS kernels built into our library: bfloat16, compute capability 9.0. Null on other GPUs, and where
/// CUTLASS's headers were missing when we were built.
std::unique_ptr<MatmulLibrary> open_cutlass(Device& device);

}  // namespace foretoken::cuda
