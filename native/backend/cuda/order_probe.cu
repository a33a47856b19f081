#include "backend/cuda/order_probe.h"

#include "backend/cuda/elementwise.h"

namespace foretoken::cuda {

namespace {

constexpr std::int64_t kRows = 64, kMostCols = 1024;
constexpr float kLarge = 8192;

/// A number in [-1, 1) that looks random.
FORETOKEN_DEVICE float noise(std::uint32_t index, std::uint32_t seed) {
  std::uint32_t x = index * 0x9e3779b9u + seed * 0x85ebca6bu;
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  x ^= x >> 16;
  return static_cast<float>(x >> 8) * 0x1p-23f - 1.0f;
}

// Noise, but that at depths 0 and `last` the factors are ±large · noise(other index): with a = 1 there and opposite signs
// in b, the large terms cancel once all others have been added.
template <typename T>
FORETOKEN_KERNEL void fill_kernel(Matrix<T> x, std::int64_t rows, std::int64_t cols, bool depth_is_col, std::int64_t last, float large,
                                  std::uint32_t seed) {
  for (std::int64_t i = global_index(); i < rows * cols; i += global_threads()) {
    const std::int64_t row = i / cols, col = i - row * cols, depth = depth_is_col ? col : row, other = depth_is_col ? row : col;
    float value = noise(static_cast<std::uint32_t>(i), seed);
    if (depth == 0 || depth == last) {
      value = large == 1 ? 1 : large * noise(static_cast<std::uint32_t>(other), seed + 1);
      if (depth == last && large != 1) value = -value;
    }
    x.row(row)[col] = narrow<T>(value);
  }
}

template <typename T>
FORETOKEN_KERNEL void compare_kernel(Matrix<const T> x, Matrix<const T> y, std::int64_t rows, std::int64_t cols,
                                     std::uint32_t* differences) {
  for (std::int64_t i = global_index(); i < rows * cols; i += global_threads()) {
    const std::int64_t row = i / cols, col = i - row * cols;
    if (bits_of_float(widen(x.row(row)[col])) != bits_of_float(widen(y.row(row)[col]))) atomic_or(differences, 1);
  }
}

Grid grid_for(const View& x) { return {(x.elements() + 255) / 256, 256}; }

void fill(Device& device, const View& x, bool depth_is_col, std::int64_t last, float large, std::uint32_t seed) {
  with_type(x.dtype, [&](auto t) {
    using T = decltype(t);
    FORETOKEN_LAUNCH(device, (fill_kernel<T>), grid_for(x), matrix<T>(x), x.rows, x.cols, depth_is_col, last, large, seed);
  });
}

}  // namespace

OrderProbe::OrderProbe(Device& device, const Product& like) : device_(device), product_(like) {
  const bool forward = like.kind == Product::Kind::Forward;
  const std::int64_t depth = like.depth(), cols = std::min(like.out.cols, kMostCols);
  std::size_t bytes = 256;
  std::size_t offsets[6];
  View views[6] = {{nullptr, like.a.dtype, kRows, depth},
                   {nullptr, like.b.dtype, forward ? cols : depth, forward ? depth : cols},
                   {nullptr, like.out.dtype, kRows, cols},
                   {nullptr, like.out.dtype, kRows, cols},
                   {nullptr, DType::Float32, 1, cols},
                   {nullptr, DType::Float32, kRows, cols}};
  for (int i = 0; i < 6; ++i) {
    views[i].stride = (views[i].cols + 7) / 8 * 8;
    offsets[i] = bytes;
    bytes += (static_cast<std::size_t>(views[i].rows * views[i].stride) * size_of(views[i].dtype) + 255) / 256 * 256;
  }
  memory_ = device.allocate(bytes);
  try {
    for (int i = 0; i < 6; ++i) views[i].data = static_cast<std::byte*>(memory_) + offsets[i];
    differences_ = static_cast<std::uint32_t*>(memory_);
    product_.a = views[0];
    product_.b = views[1];
    results_[0] = views[2];
    results_[1] = views[3];
    if (like.bias) product_.bias = views[4];
    if (like.residual) product_.residual = views[5];
    fill(device, views[0], true, depth - 1, 1, 1);
    fill(device, views[1], forward, depth - 1, kLarge, 2);
    fill(device, views[4], true, -1, 1, 4);
    fill(device, views[5], true, -1, 1, 5);
  } catch (...) {
    device.release(memory_);
    throw;
  }
}

OrderProbe::~OrderProbe() { device_.release(memory_); }

Product OrderProbe::product(int result) const {
  Product product = product_;
  product.out = results_[result];
  return product;
}

bool OrderProbe::equal() const {
  device_.clear(differences_, 1, sizeof(std::uint32_t), 0);
  with_type(results_[0].dtype, [&](auto t) {
    using T = decltype(t);
    FORETOKEN_LAUNCH(device_, (compare_kernel<T>), grid_for(results_[0]), matrix<const T>(results_[0]), matrix<const T>(results_[1]),
                     results_[0].rows, results_[0].cols, differences_);
  });
  std::uint32_t differences = 0;
  device_.download(&differences, differences_, sizeof differences);
  return differences == 0;
}

}  // namespace foretoken::cuda
