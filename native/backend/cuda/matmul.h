#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "backend/cuda/device/device.h"
#include "backend/view.h"

namespace foretoken::cuda {

/// One product of a linear layer, out (M, N) = a · b [+ bias] [+ residual], sums in float32 over the depth D.
struct Product {
  enum class Kind { Forward, BackwardInput, BackwardWeight };

  Kind kind = Kind::Forward;
  View a;         // (M, D) T; BackwardWeight: (D, M)
  View b;         // BackwardInput and BackwardWeight: (D, N) T; Forward: (N, D)
  View out;       // (M, N) T or float32
  View bias;      // (1, N) float32, or empty
  View residual;  // (M, N) float32, possibly out itself, or empty

  std::int64_t depth() const { return kind == Kind::BackwardWeight ? a.rows : a.cols; }
};

/// Somebody else's products for a GPU: cuBLASLt where it is installed, or the CUTLASS kernels that we bring along.
class MatmulLibrary {
 public:
  virtual ~MatmulLibrary() = default;
  virtual std::string name() const = 0;  // "cuBLASLt 13.1.0"

  /// Queues the product; false when the library does not do products like it, and then nothing has happened. The answer
  /// and the order of a row's sum depend on kind, N, D, dtypes and strides, and never on M, but for BackwardWeight.
  virtual bool multiply(const Product& product) = 0;

  /// Device memory that it holds, or will hold.
  virtual std::size_t workspace_bytes() const = 0;
};

/// The library for a device, as the environment variable FORETOKEN_CUDA_MATMUL says ("cublaslt", "cutlass" or "plain") or
/// else the first that is there; null: our own kernels. Throws DeviceUnavailable when the one asked for is not there.
std::unique_ptr<MatmulLibrary> open_matmul_library(Device& device, bool allow_tf32);

}  // namespace foretoken::cuda
