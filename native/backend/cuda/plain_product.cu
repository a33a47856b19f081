#include "backend/cuda/plain_product.h"

#include "backend/cuda/device/launch.h"
#include "backend/cuda/device/mma.h"

namespace foretoken::cuda {

namespace {

// out[m, n] = Σ_d a[m, d] · b[d, n] [+ bias[n]] [+ residual[m, n]], the sum in float32 over d upwards as mma.h says.
// A block makes a tile of 128 by 128, each of its eight warps 64 by 32 of it. While one part of the depth is multiplied,
// the next is on its way into the other half of shared memory.
constexpr int kTile = 128, kTileThreads = 256, kStrips = 4, kPanels = 2, kWarpsAcross = kTile / (16 * kPanels);
template <typename T>
constexpr int kDepth = 128 / static_cast<int>(sizeof(T));
template <typename T>
constexpr int kOperand = kTile * kTileStride<T, kDepth<T>>;  // elements of an operand's tile

/// Rows [first, first + kTile) and depths [depth, depth + kDepth) of x become tile[row][depth], zeros where there are none;
/// x is (rows, depths), or (depths, rows) when `transposed`.
template <bool transposed, typename T>
FORETOKEN_DEVICE void load_tile(Matrix<const T> x, std::int64_t rows, std::int64_t depths, std::int64_t first, std::int64_t depth,
                                T* tile) {
  constexpr int stride = kTileStride<T, kDepth<T>>;
  if constexpr (transposed) {
    // Neighbouring threads take neighbouring depths, so that they write next to each other.
    for (int i = thread_index(); i < kTile * kDepth<T> / kChunk; i += kTileThreads) {
      const int d = i % kDepth<T>, row = i / kDepth<T> * kChunk;
      float v[kChunk];
      if (depth + d < depths) {
        load_chunk(x.row(depth + d) + first + row, rows - first - row, x.aligned, v);
      } else {
#pragma unroll
        for (int j = 0; j < kChunk; ++j) v[j] = 0;
      }
#pragma unroll
      for (int j = 0; j < kChunk; ++j) tile[(row + j) * stride + d] = narrow<T>(v[j]);
    }
  } else {
    constexpr int word = kWordElements<T>, words = kDepth<T> / word;
    for (int i = thread_index(); i < kTile * words; i += kTileThreads) {
      const int row = i / words, d = i % words * word;
      const bool there = first + row < rows;
      copy_row_word(tile + row * stride + d, there ? x.row(first + row) : x.data, static_cast<int>(depth) + d, static_cast<int>(depths),
                    there, x.aligned);
    }
  }
}

template <Product::Kind kind, typename T, typename Y>
FORETOKEN_KERNEL void FORETOKEN_BOUNDS(kTileThreads)
    product_kernel(Matrix<const T> a, Matrix<const T> b, std::int64_t rows, std::int64_t cols, std::int64_t depths, const float* bias,
                   Matrix<const float> residual, Matrix<Y> out) {
  constexpr int stride = kTileStride<T, kDepth<T>>;
  T* tiles = shared_memory<T>();  // (2, 2): a's and b's tile of this part and of the next
  const std::int64_t across = (cols + kTile - 1) / kTile;
  const std::int64_t first_row = block_index() / across * kTile, first_col = block_index() % across * kTile;
  const auto load = [&](int part, std::int64_t depth) {
    T* tile = tiles + part * 2 * kOperand<T>;
    load_tile<kind == Product::Kind::BackwardWeight>(a, rows, depths, first_row, depth, tile);
    load_tile<kind != Product::Kind::Forward>(b, cols, depths, first_col, depth, tile + kOperand<T>);
    commit_copies();
  };
  const int warp_row = warp_index() / kWarpsAcross * 16 * kStrips, warp_col = warp_index() % kWarpsAcross * 16 * kPanels;
  float sums[kPanels][kStrips][2][4] = {};
  load(0, 0);
  int part = 0;
  for (std::int64_t depth = 0; depth < depths; depth += kDepth<T>, part = 1 - part) {
    wait_copies<0>();
    sync_block();  // this part is there, and nobody reads the other one any more
    if (depth + kDepth<T> < depths) load(1 - part, depth + kDepth<T>);
    const T* tile = tiles + part * 2 * kOperand<T>;
    multiply_rows<kDepth<T>>(tile + warp_row * stride, tile + kOperand<T> + warp_col * stride, sums);
  }
#pragma unroll
  for (int strip = 0; strip < kStrips; ++strip)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::int64_t m = first_row + warp_row + tile_row(strip, half);
      if (m >= rows) continue;
#pragma unroll
      for (int panel = 0; panel < kPanels; ++panel)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const std::int64_t n = first_col + warp_col + tile_column(panel, i / 2, i % 2);
          if (n >= cols) continue;
          float sum = sums[panel][strip][i / 2][2 * half + i % 2];
          if (bias) sum += bias[n];
          if (residual.data) sum += residual.row(m)[n];
          out.row(m)[n] = narrow<Y>(sum);
        }
    }
}

template <Product::Kind kind>
void launch_product(Device& device, const Product& p) {
  const std::int64_t tiles = (p.out.rows + kTile - 1) / kTile * ((p.out.cols + kTile - 1) / kTile);
  with_type(p.a.dtype, [&](auto t) {
    with_type(p.out.dtype, [&](auto u) {
      using T = decltype(t);
      using Y = decltype(u);
      // Results are float32 or like the factors; gradients of weights are float32.
      if constexpr (sizeof(Y) == 4 || (sizeof(T) == 2 && kind != Product::Kind::BackwardWeight))
        FORETOKEN_LAUNCH(device, (product_kernel<kind, T, Y>), (Grid{tiles, kTileThreads, sizeof(T) * 4 * kOperand<T>}),
                         matrix<const T>(p.a), matrix<const T>(p.b), p.out.rows, p.out.cols, p.depth(),
                         p.bias.template as<float>(), matrix<const float>(p.residual), matrix<Y>(p.out));
      else fail(ErrorCode::Internal, "internal error: no product of ", name_of(p.a.dtype), " gives ", name_of(p.out.dtype));
    });
  });
}

}  // namespace

void multiply_plainly(Device& device, const Product& product) {
  switch (product.kind) {
    case Product::Kind::Forward: return launch_product<Product::Kind::Forward>(device, product);
    case Product::Kind::BackwardInput: return launch_product<Product::Kind::BackwardInput>(device, product);
    case Product::Kind::BackwardWeight: return launch_product<Product::Kind::BackwardWeight>(device, product);
  }
}

}  // namespace foretoken::cuda
