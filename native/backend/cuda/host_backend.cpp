#include "backend/cuda/host_backend.h"

#include "backend/cuda/cuda_backend.h"

namespace foretoken {

std::unique_ptr<Backend> make_cuda_host_backend(DType dtype, cuda::ThreadOrder order) {
  return std::make_unique<cuda::CudaBackend>(cuda::make_host_device(order), dtype);
}

}  // namespace foretoken
