#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/plain_product.h"

namespace foretoken::cuda {

namespace {

/// A weight as (O, I), row-major, in the activation dtype.
class CudaWeight final : public Weight {
 public:
  CudaWeight(Backend& backend, DType dtype, std::int64_t outputs, std::int64_t inputs)
      : buffer_(backend, static_cast<std::size_t>(outputs * inputs) * size_of(dtype)),
        view_(buffer_.data(), dtype, outputs, inputs) {}
  std::size_t bytes() const override { return buffer_.bytes(); }
  const View& view() const { return view_; }

 private:
  Buffer buffer_;
  View view_;
};

const View& view_of(const Weight& weight) { return static_cast<const CudaWeight&>(weight).view(); }

}  // namespace

std::unique_ptr<Weight> CudaBackend::make_weight(std::int64_t outputs, std::int64_t inputs, bool) {
  return std::make_unique<CudaWeight>(*this, dtype_, outputs, inputs);
}

std::size_t CudaBackend::weight_bytes(std::int64_t outputs, std::int64_t inputs, bool) const {
  return static_cast<std::size_t>(outputs * inputs) * size_of(dtype_);
}

void CudaBackend::pack_weight(Weight& weight, View master) { convert(master, view_of(weight)); }

void CudaBackend::multiply(const Product& product) {
  if (product.out.elements() == 0 || product.depth() == 0) return;
  if (library_ && library_->multiply(product)) return;
  multiply_plainly(*device_, product);
}

void CudaBackend::linear_forward(View x, const Weight& weight, View bias, View residual, View y) {
  const Product product{Product::Kind::Forward, x, view_of(weight), y, bias, residual};
  if (library_ && bias && y.dtype != DType::Float32 && y.elements() > 0) {
    if (library_->multiply(product)) return;
    // Not every library adds a float32 bias before it rounds: the sums pass through memory then, still rounded once.
    const std::int64_t stride = (y.cols + 7) / 8 * 8;
    const View wide(scratch(static_cast<std::size_t>(y.rows * stride) * sizeof(float)), DType::Float32, y.rows, y.cols, stride);
    multiply({Product::Kind::Forward, x, view_of(weight), wide, bias, residual});
    return convert(wide, y);
  }
  multiply(product);
}

void CudaBackend::linear_backward_input(View dy, const Weight& weight, View dx, bool accumulate) {
  multiply({Product::Kind::BackwardInput, dy, view_of(weight), dx, View(), accumulate ? dx : View()});
}

void CudaBackend::linear_backward_weight(View dy, View x, View dweight) {
  multiply({Product::Kind::BackwardWeight, dy, x, dweight, View(), dweight});
}

}  // namespace foretoken::cuda
