#include "backend/cuda/matmul.h"

#ifdef __CUDACC__

#include <cstdlib>

#include "backend/cuda/cublaslt.h"
#include "backend/cuda/cublaslt_search.h"
#include "backend/cuda/library/cutlass.h"
#include "core/error.h"

namespace foretoken::cuda {

namespace {

std::unique_ptr<MatmulLibrary> open_cublaslt(Device& device, bool allow_tf32, std::string& reasons) {
  for (const std::string& file : cublaslt::candidates()) {
    cublaslt::Functions functions;
    if (!cublaslt::load(file, functions)) continue;
    try {
      return std::make_unique<CublasLt>(device, functions, allow_tf32);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::DeviceUnavailable) throw;
      reasons += std::string(error.what()) + "; ";
    }
  }
  return nullptr;
}

}  // namespace

std::unique_ptr<MatmulLibrary> open_matmul_library(Device& device, bool allow_tf32) {
  const char* value = std::getenv("FORETOKEN_CUDA_MATMUL");
  const std::string wish = value ? value : "";
  if (!wish.empty() && wish != "cublaslt" && wish != "cutlass" && wish != "plain")
    fail(ErrorCode::InvalidArgument, "FORETOKEN_CUDA_MATMUL is \"", wish, "\"; it can be cublaslt, cutlass or plain");
  if (wish == "plain") return nullptr;
  std::string reasons;
  if (wish != "cutlass")
    if (auto library = open_cublaslt(device, allow_tf32, reasons)) return library;
  if (wish == "cublaslt")
    fail(ErrorCode::DeviceUnavailable, "FORETOKEN_CUDA_MATMUL asks for cuBLASLt, which was not found: ", reasons,
         "set CUDA_HOME, or FORETOKEN_CUDA_LIBRARIES to the folder of libcublasLt.so");
  std::unique_ptr<MatmulLibrary> library = open_cutlass(device);
  if (!library && wish == "cutlass")
    fail(ErrorCode::DeviceUnavailable, "FORETOKEN_CUDA_MATMUL asks for CUTLASS, whose kernels are for compute capability 9.0 and "
         "need CUTLASS's headers where the library is built");
  return library;
}

}  // namespace foretoken::cuda

#else

namespace foretoken::cuda {

// An emulated device has our own kernels only.
std::unique_ptr<MatmulLibrary> open_matmul_library(Device&, bool) { return nullptr; }

}  // namespace foretoken::cuda

#endif
