#include "backend/cpu/operations.h"
#include "core/error.h"

namespace foretoken::cpu {

namespace {

/// A weight (O, I) as the right operand of x · wᵀ, and of dy · w where it is trained.
class CpuWeight final : public Weight {
 public:
  CpuWeight(const Matmul& matmul, DType dtype, std::int64_t outputs, std::int64_t inputs, bool trainable)
      : forward(matmul, dtype, inputs, outputs) {
    if (trainable) backward = PackedMatrix(matmul, dtype, outputs, inputs);
  }
  std::size_t bytes() const override { return forward.bytes() + backward.bytes(); }

  PackedMatrix forward;   // (I, O)
  PackedMatrix backward;  // (O, I), or empty
};

MatrixView matrix(const View& x) { return {x.data, x.stride, x.dtype}; }
MutableMatrixView mutable_matrix(const View& x) { return {x.data, x.stride, x.dtype}; }

}  // namespace

std::unique_ptr<Weight> CpuBackend::make_weight(std::int64_t outputs, std::int64_t inputs, bool trainable) {
  return std::make_unique<CpuWeight>(matmul_, dtype_, outputs, inputs, trainable);
}

std::size_t CpuBackend::weight_bytes(std::int64_t outputs, std::int64_t inputs, bool trainable) const {
  return PackedMatrix::bytes_for(matmul_, dtype_, inputs, outputs) +
         (trainable ? PackedMatrix::bytes_for(matmul_, dtype_, outputs, inputs) : 0);
}

void CpuBackend::pack_weight(Weight& weight, View master) {
  CpuWeight& packed = static_cast<CpuWeight&>(weight);
  View source = master;
  if (master.dtype != DType::Float32 && master.dtype != DType::BFloat16) {
    source = View(scratch(master.rows, master.cols), dtype_, master.rows, master.cols);
    convert(master, source);
  }
  pack(team_, packed.forward, matrix(source), true);
  if (packed.backward.matmul()) pack(team_, packed.backward, matrix(source), false);
}

void CpuBackend::linear_forward(View x, const Weight& weight, View bias, View residual, View y) {
  Epilogue epilogue;
  epilogue.bias = bias.as<float>();
  epilogue.residual = residual.as<float>();
  epilogue.residual_stride = residual.stride;
  multiply(team_, matrix(x), x.rows, static_cast<const CpuWeight&>(weight).forward, epilogue, mutable_matrix(y));
}

void CpuBackend::linear_backward_input(View dy, const Weight& weight, View dx, bool accumulate) {
  const PackedMatrix& backward = static_cast<const CpuWeight&>(weight).backward;
  invariant(backward.matmul() != nullptr, "a weight that is not trainable has no backward product");
  Epilogue epilogue;
  if (accumulate) {
    epilogue.residual = dx.as<float>();
    epilogue.residual_stride = dx.stride;
  }
  multiply(team_, matrix(dy), dy.rows, backward, epilogue, mutable_matrix(dx));
}

void CpuBackend::linear_backward_weight(View dy, View x, View dweight) {
  multiply_gradient(team_, matmul_, gradient_workspace_, matrix(dy), matrix(x), dy.rows, dy.cols, x.cols,
                    dweight.as<float>(), dweight.stride);
}

void CpuBackend::bias_backward(View dy, View dbias) {
  constexpr std::int64_t band = 64;
  team_.parallel_for((dy.cols + band - 1) / band, [&](std::int64_t task, int) {
    const std::int64_t begin = task * band, cols = std::min(band, dy.cols - begin);
    kernels_of(dy.dtype).column_sums(dy.slice_cols(begin, cols).data, dy.stride, dy.rows, cols,
                                     dbias.as<float>() + begin);
  });
}

}  // namespace foretoken::cpu
