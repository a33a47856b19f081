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

// Our own product, of any shape and alignment: out[m, n] = Σ_d a[m, d] · b[d, n] [+ bias[n]] [+ residual[m, n]], the sum in
// float32 over d in order. A block makes a tile of 64 by 64; its threads load 16 depths of both operands at a time into
// shared memory, and each keeps 4 by 4 sums.
constexpr int kTile = 64, kDepth = 16, kTileThreads = 256, kSide = 4;
static_assert(kTile * kDepth == kTileThreads / 2 * kChunk, "half of the threads load an operand, a chunk each");

/// Loads depths [depth, depth + kDepth) of rows [first, first + kTile) into tile[d][row]; x is (rows, depths), or
/// (depths, rows) when `transposed`. A thread of `half` loads one chunk.
template <bool transposed, typename T>
FORETOKEN_DEVICE void load_tile(Matrix<const T> x, std::int64_t rows, std::int64_t depths, std::int64_t first, std::int64_t depth,
                                int thread, float (&tile)[kDepth][kTile]) {
  constexpr int per_row = (transposed ? kTile : kDepth) / kChunk;
  const int major = thread / per_row, minor = thread % per_row * kChunk;
  const std::int64_t row = (transposed ? depth : first) + major, col = (transposed ? first : depth) + minor;
  float v[kChunk];
  if (row < (transposed ? depths : rows)) {
    load_chunk(x.row(row) + col, (transposed ? rows : depths) - col, x.aligned, v);
  } else {
#pragma unroll
    for (int i = 0; i < kChunk; ++i) v[i] = 0;
  }
#pragma unroll
  for (int i = 0; i < kChunk; ++i) {
    if (transposed) tile[major][minor + i] = v[i];
    else tile[minor + i][major] = v[i];
  }
}

template <Product::Kind kind, typename T, typename Y>
FORETOKEN_KERNEL void FORETOKEN_BOUNDS(kTileThreads)
    product_kernel(Matrix<const T> a, Matrix<const T> b, std::int64_t rows, std::int64_t cols, std::int64_t depths, const float* bias,
                   Matrix<const float> residual, Matrix<Y> out) {
  FORETOKEN_SHARED float tile_a[kDepth][kTile];
  FORETOKEN_SHARED float tile_b[kDepth][kTile];
  const std::int64_t tiles = (cols + kTile - 1) / kTile;
  const std::int64_t first_row = block_index() / tiles * kTile, first_col = block_index() % tiles * kTile;
  const int half = kTileThreads / 2, i0 = thread_index() / (kTile / kSide) * kSide, j0 = thread_index() % (kTile / kSide) * kSide;
  float sums[kSide][kSide] = {};
  for (std::int64_t depth = 0; depth < depths; depth += kDepth) {
    if (thread_index() < half)
      load_tile<kind == Product::Kind::BackwardWeight>(a, rows, depths, first_row, depth, thread_index(), tile_a);
    else load_tile<kind != Product::Kind::Forward>(b, cols, depths, first_col, depth, thread_index() - half, tile_b);
    sync_block();
#pragma unroll
    for (int d = 0; d < kDepth; ++d)
#pragma unroll
      for (int i = 0; i < kSide; ++i)
#pragma unroll
        for (int j = 0; j < kSide; ++j) sums[i][j] = fmaf(tile_a[d][i0 + i], tile_b[d][j0 + j], sums[i][j]);
    sync_block();
  }
#pragma unroll
  for (int i = 0; i < kSide; ++i)
#pragma unroll
    for (int j = 0; j < kSide; ++j) {
      const std::int64_t m = first_row + i0 + i, n = first_col + j0 + j;
      if (m >= rows || n >= cols) continue;
      float sum = sums[i][j];
      if (bias) sum += bias[n];
      if (residual.data) sum += residual.row(m)[n];
      out.row(m)[n] = narrow<Y>(sum);
    }
}

template <Product::Kind kind>
void multiply_plainly(Device& device, const Product& p) {
  const std::int64_t tiles = (p.out.rows + kTile - 1) / kTile * ((p.out.cols + kTile - 1) / kTile);
  with_type(p.a.dtype, [&](auto t) {
    with_type(p.out.dtype, [&](auto u) {
      using T = decltype(t);
      using Y = decltype(u);
      FORETOKEN_LAUNCH(device, (product_kernel<kind, T, Y>), (Grid{tiles, kTileThreads}), matrix<const T>(p.a), matrix<const T>(p.b),
                       p.out.rows, p.out.cols, p.depth(), p.bias.template as<float>(), matrix<const float>(p.residual), matrix<Y>(p.out));
    });
  });
}

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
  switch (product.kind) {
    case Product::Kind::Forward: return multiply_plainly<Product::Kind::Forward>(*device_, product);
    case Product::Kind::BackwardInput: return multiply_plainly<Product::Kind::BackwardInput>(*device_, product);
    case Product::Kind::BackwardWeight: return multiply_plainly<Product::Kind::BackwardWeight>(*device_, product);
  }
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

std::size_t CudaBackend::linear_scratch_bytes(std::int64_t, std::int64_t) const {
  return library_ ? library_->workspace_bytes() : 0;
}

}  // namespace foretoken::cuda
