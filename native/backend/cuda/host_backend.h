#pragma once

#include <memory>

#include "backend/backend.h"
#include "backend/cuda/device/emulator.h"

namespace foretoken {

/// The CUDA backend on the host, its kernels run by the emulator: for tests.
std::unique_ptr<Backend> make_cuda_host_backend(DType dtype, cuda::ThreadOrder order);

}  // namespace foretoken
