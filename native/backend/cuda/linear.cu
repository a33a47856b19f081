#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/device/launch.h"

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

constexpr int kThreads = 128;

Grid grid_for(std::int64_t elements) { return {(elements + kThreads - 1) / kThreads, kThreads}; }

// y[n, o] = x[n] · w[o] + bias[o] + residual[n, o]: a thread per element, the sum over I in order.
template <typename T, typename Y>
FORETOKEN_KERNEL void linear_forward_kernel(Matrix<const T> x, Matrix<const T> w, std::int64_t rows, std::int64_t outputs,
                                            std::int64_t inputs, const float* bias, Matrix<const float> residual, Matrix<Y> y) {
  const std::int64_t index = global_index(), n = index / outputs, o = index - n * outputs;
  if (n >= rows) return;
  float sum = 0;
  for (std::int64_t i = 0; i < inputs; ++i) sum = fmaf(widen(x.row(n)[i]), widen(w.row(o)[i]), sum);
  if (bias) sum += bias[o];
  if (residual.data) sum += residual.row(n)[o];
  y.row(n)[o] = narrow<Y>(sum);
}

// dx[n, i] = Σₒ dy[n, o] · w[o, i] [+ dx]: the sum over O in order.
template <typename T, typename X>
FORETOKEN_KERNEL void linear_backward_input_kernel(Matrix<const T> dy, Matrix<const T> w, std::int64_t rows, std::int64_t outputs,
                                                   std::int64_t inputs, bool accumulate, Matrix<X> dx) {
  const std::int64_t index = global_index(), n = index / inputs, i = index - n * inputs;
  if (n >= rows) return;
  float sum = 0;
  for (std::int64_t o = 0; o < outputs; ++o) sum = fmaf(widen(dy.row(n)[o]), widen(w.row(o)[i]), sum);
  if (accumulate) sum += widen(dx.row(n)[i]);
  dx.row(n)[i] = narrow<X>(sum);
}

// dweight[o, i] += Σₙ dy[n, o] · x[n, i]: the sum over N in order.
template <typename T>
FORETOKEN_KERNEL void linear_backward_weight_kernel(Matrix<const T> dy, Matrix<const T> x, std::int64_t rows, std::int64_t outputs,
                                                    std::int64_t inputs, Matrix<float> dweight) {
  const std::int64_t index = global_index(), o = index / inputs, i = index - o * inputs;
  if (o >= outputs) return;
  float sum = 0;
  for (std::int64_t n = 0; n < rows; ++n) sum = fmaf(widen(dy.row(n)[o]), widen(x.row(n)[i]), sum);
  dweight.row(o)[i] += sum;
}

}  // namespace

std::unique_ptr<Weight> CudaBackend::make_weight(std::int64_t outputs, std::int64_t inputs, bool) {
  return std::make_unique<CudaWeight>(*this, dtype_, outputs, inputs);
}

std::size_t CudaBackend::weight_bytes(std::int64_t outputs, std::int64_t inputs, bool) const {
  return static_cast<std::size_t>(outputs * inputs) * size_of(dtype_);
}

void CudaBackend::pack_weight(Weight& weight, View master) { convert(master, view_of(weight)); }

void CudaBackend::linear_forward(View x, const Weight& weight, View bias, View residual, View y) {
  const View& w = view_of(weight);
  with_type(dtype_, [&](auto t) {
    with_type(y.dtype, [&](auto u) {
      using T = decltype(t);
      using Y = decltype(u);
      FORETOKEN_LAUNCH(*device_, (linear_forward_kernel<T, Y>), grid_for(y.elements()), matrix<const T>(x), matrix<const T>(w),
                       y.rows, y.cols, x.cols, bias.as<float>(), matrix<const float>(residual), matrix<Y>(y));
    });
  });
}

void CudaBackend::linear_backward_input(View dy, const Weight& weight, View dx, bool accumulate) {
  const View& w = view_of(weight);
  with_type(dtype_, [&](auto t) {
    with_type(dx.dtype, [&](auto u) {
      using T = decltype(t);
      using X = decltype(u);
      FORETOKEN_LAUNCH(*device_, (linear_backward_input_kernel<T, X>), grid_for(dx.elements()), matrix<const T>(dy),
                       matrix<const T>(w), dx.rows, dy.cols, dx.cols, accumulate, matrix<X>(dx));
    });
  });
}

void CudaBackend::linear_backward_weight(View dy, View x, View dweight) {
  with_type(dtype_, [&](auto t) {
    using T = decltype(t);
    FORETOKEN_LAUNCH(*device_, (linear_backward_weight_kernel<T>), grid_for(dweight.elements()), matrix<const T>(dy),
                     matrix<const T>(x), dy.rows, dweight.rows, dweight.cols, matrix<float>(dweight));
  });
}

std::size_t CudaBackend::linear_scratch_bytes(std::int64_t, std::int64_t) const { return 0; }

}  // namespace foretoken::cuda
