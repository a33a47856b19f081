#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/cpu/aligned_memory.h"
#include "backend/cpu/isa.h"
#include "core/dtype.h"
#include "core/thread_team.h"

namespace foretoken::cpu {

// The matrix product of the CPU backend. Every output element is one chain of additions over k, in order, one k at a
// time (float32; bfloat16 widened), one pair of k (bfloat16 on AVX512-BF16) or 32 (on AMX, which adds the even and the
// odd ones up apart), so its bits depend on the instruction set and on its own row and column only: not on the number of
// rows, their position, strides, or threads.

/// The kernels of one instruction set.
struct Matmul;

/// The kernels for `isa`; throws DeviceUnavailable when this machine lacks it. Valid for the life of the process.
const Matmul& matmul_for(Isa isa);

/// A row-major matrix of float32 or bfloat16 that somebody else owns; `stride` is in elements from row to row.
struct MatrixView {
  const void* data = nullptr;
  std::int64_t stride = 0;
  DType dtype = DType::Float32;

  MatrixView() = default;
  MatrixView(const void* data_, std::int64_t stride_, DType dtype_) : data(data_), stride(stride_), dtype(dtype_) {}
  MatrixView(const float* data_, std::int64_t stride_) : MatrixView(data_, stride_, DType::Float32) {}
  MatrixView(const BFloat16* data_, std::int64_t stride_) : MatrixView(data_, stride_, DType::BFloat16) {}
};

/// The same, to be written.
struct MutableMatrixView {
  void* data = nullptr;
  std::int64_t stride = 0;
  DType dtype = DType::Float32;

  MutableMatrixView() = default;
  MutableMatrixView(void* data_, std::int64_t stride_, DType dtype_) : data(data_), stride(stride_), dtype(dtype_) {}
  MutableMatrixView(float* data_, std::int64_t stride_) : MutableMatrixView(data_, stride_, DType::Float32) {}
  MutableMatrixView(BFloat16* data_, std::int64_t stride_) : MutableMatrixView(data_, stride_, DType::BFloat16) {}
};

/// A right operand (K, N), rearranged into column panels for one instruction set; filled by `pack`.
class PackedMatrix {
 public:
  PackedMatrix() = default;
  /// Owns its memory; throws OutOfMemory.
  PackedMatrix(const Matmul& matmul, DType dtype, std::int64_t k, std::int64_t n);
  /// Lies in `bytes_for` bytes of somebody's arena, on a cache line's boundary, which must outlive it.
  PackedMatrix(const Matmul& matmul, DType dtype, std::int64_t k, std::int64_t n, std::byte* memory);
  PackedMatrix(PackedMatrix&& other) = default;
  PackedMatrix& operator=(PackedMatrix&& other) = default;

  /// The memory that it takes; a multiple of 64.
  static std::size_t bytes_for(const Matmul& matmul, DType dtype, std::int64_t k, std::int64_t n);

  DType dtype() const { return dtype_; }
  std::int64_t k() const { return k_; }
  std::int64_t n() const { return n_; }
  std::size_t bytes() const { return matmul_ == nullptr ? 0 : bytes_for(*matmul_, dtype_, k_, n_); }
  std::byte* data() const { return data_; }
  /// The kernels that the panels are laid out for; null for an empty matrix.
  const Matmul* matmul() const { return matmul_; }

 private:
  AlignedMemory owned_;
  std::byte* data_ = nullptr;
  const Matmul* matmul_ = nullptr;
  DType dtype_ = DType::Float32;
  std::int64_t k_ = 0, n_ = 0;
};

/// Fills `into` (K, N) from `source`, rounded or widened to its dtype. `transposed`: B[k][n] = source[n * stride + k],
/// source being (N, K) as a weight (O, I) is in y = x Wᵀ; else B[k][n] = source[k * stride + n], as in dx = dy W.
void pack(ThreadTeam& team, PackedMatrix& into, const MatrixView& source, bool transposed);

/// What happens to a sum before it is rounded to the output's dtype, in this order.
struct Epilogue {
  const float* bias = nullptr;       // (N), added if given
  const float* residual = nullptr;   // (M, N), added if given; may be the output itself
  std::int64_t residual_stride = 0;
};

/// out (M, N) = a (M, K) · b (K, N), then the epilogue. `a` has b's dtype; `out` is float32 or bfloat16.
void multiply(ThreadTeam& team, const MatrixView& a, std::int64_t rows, const PackedMatrix& b, const Epilogue& epilogue,
              const MutableMatrixView& out);

/// Memory that `multiply_gradient` rearranges its operands in; grows when asked for more, never shrinks.
class GradientWorkspace {
 public:
  /// What a gradient (O, I) over any number of tokens takes on so many threads; at most some megabytes for each.
  static std::size_t bytes_for(const Matmul& matmul, DType dtype, int threads, std::int64_t outputs,
                               std::int64_t inputs);

  /// Makes sure of `bytes`; throws OutOfMemory.
  void reserve(std::size_t bytes);
  std::size_t bytes() const { return memory_.bytes(); }
  std::byte* data() const { return memory_.data(); }

 private:
  AlignedMemory memory_;
};

/// The tokens that one instruction adds up: 1 of float32; 2 of bfloat16, 32 on AMX.
std::int64_t tokens_of_a_step(const Matmul& matmul, DType dtype);

/// dw (O, I) += dyᵀ · x for dy (N, O) and x (N, I) of one dtype: each element's chain starts from what dw holds and
/// goes through the N tokens in order, `tokens_of_a_step` at a time, so N tokens in one call or (cut at a multiple of
/// those) in several give the same bits.
void multiply_gradient(ThreadTeam& team, const Matmul& matmul, GradientWorkspace& workspace, const MatrixView& dy,
                       const MatrixView& x, std::int64_t tokens, std::int64_t outputs, std::int64_t inputs, float* dw,
                       std::int64_t dw_stride);

}  // namespace foretoken::cpu
