#pragma once

#include "backend/cuda/device/async_copy.h"

// Products of small matrices that a warp computes together: on tensor cores for bfloat16 (mma.sync m16n8k16, sm_80 and
// up), by fused multiply-adds for float32. Operands lie in shared memory, row-major, rows kTileStride apart, so that
// neither ldmatrix nor the float32 loads meet bank conflicts.
//
// A warp holds results in strips of 16 rows and panels of 16 columns, float c[panel][strip][2][4]: lane l has in
// [panel][strip][tile][i] row 16 strip + l / 4 + 8 (i / 2) and column 16 panel + 8 tile + 2 (l mod 4) + i mod 2.
// tile_row and tile_column say the same.
//
// Order of sums: over k upwards, 16 at a time for bfloat16 (within the 16, the order of the tensor core), one at a time
// for float32. An element depends on its row of A and its column of B alone. The bodies for the host add up one at a
// time; a product of two float32 is rounded before it is added there, one of bfloat16 is exact.
namespace foretoken::cuda {

template <typename T, int Columns>
inline constexpr int kTileStride = Columns + kWordElements<T>;

FORETOKEN_DEVICE int tile_row(int strip, int half) { return 16 * strip + lane_index() / 4 + 8 * half; }
FORETOKEN_DEVICE int tile_column(int panel, int tile, int i) { return 16 * panel + 8 * tile + 2 * (lane_index() % 4) + i; }

/// A panel of a strip as the left operand of a product: 16 rows and 16 of the numbers that are summed over, rounded to T.
template <typename T>
struct Factor;
template <>
struct Factor<float> {
  float x[8];
};
template <>
struct Factor<BFloat16> {
  std::uint32_t x[4];  // two numbers each, the lower column in the lower half
};

template <typename T>
FORETOKEN_DEVICE Factor<T> factor_of(const float (&c)[2][4]) {
  Factor<T> result;
  if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int i = 0; i < 8; ++i) result.x[i] = c[i / 4][i % 4];
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#ifdef __CUDA_ARCH__
      asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result.x[i]) : "f"(c[i / 2][i % 2 * 2 + 1]), "f"(c[i / 2][i % 2 * 2]));
#else
      result.x[i] = narrow<T>(c[i / 2][i % 2 * 2]).bits |
                    static_cast<std::uint32_t>(narrow<T>(c[i / 2][i % 2 * 2 + 1]).bits) << 16;
#endif
    }
  }
  return result;
}

#ifdef __CUDACC__

// ---- what the hardware has; empty where nvcc compiles for the host

/// Where a pointer to shared memory points, in bytes. Offsets are added to this, not to pointers: ptxas then writes them
/// into the instructions instead of keeping a register for each.
FORETOKEN_DEVICE std::uint32_t shared_address([[maybe_unused]] const void* p) {
#ifdef __CUDA_ARCH__
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
#else
  return 0;
#endif
}
FORETOKEN_DEVICE void load_matrices([[maybe_unused]] std::uint32_t (&x)[4], [[maybe_unused]] std::uint32_t address) {
#ifdef __CUDA_ARCH__
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(address));
#endif
}
FORETOKEN_DEVICE void load_matrices_transposed([[maybe_unused]] std::uint32_t (&x)[4], [[maybe_unused]] std::uint32_t address) {
#ifdef __CUDA_ARCH__
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(address));
#endif
}
FORETOKEN_DEVICE void mma([[maybe_unused]] float (&c)[4], [[maybe_unused]] const std::uint32_t (&a)[4],
                          [[maybe_unused]] std::uint32_t b0, [[maybe_unused]] std::uint32_t b1) {
#ifdef __CUDA_ARCH__
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};\n"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

namespace detail {

template <int K, int Panels, int Strips>
FORETOKEN_DEVICE void add_product(const BFloat16* a, const BFloat16* b, float (&c)[Panels][Strips][2][4]) {
  constexpr int stride = kTileStride<BFloat16, K>;
  const int lane = lane_index();
  const std::uint32_t a_row = shared_address(a + (lane & 15) * stride + (lane >> 4) * 8);
  const std::uint32_t b_row = shared_address(b + ((lane & 7) + (lane >> 4) * 8) * stride + ((lane >> 3) & 1) * 8);
#pragma unroll
  for (int k = 0; k < K; k += 16) {
    std::uint32_t left[Strips][4];
#pragma unroll
    for (int s = 0; s < Strips; ++s) load_matrices(left[s], a_row + 2 * (s * 16 * stride + k));
#pragma unroll
    for (int p = 0; p < Panels; ++p) {
      std::uint32_t right[4];
      load_matrices(right, b_row + 2 * (p * 16 * stride + k));
#pragma unroll
      for (int s = 0; s < Strips; ++s) {
        mma(c[p][s][0], left[s], right[0], right[1]);
        mma(c[p][s][1], left[s], right[2], right[3]);
      }
    }
  }
}

template <int K, int Panels, int Strips>
FORETOKEN_DEVICE void add_product(const float* a, const float* b, float (&c)[Panels][Strips][2][4]) {
  constexpr int stride = kTileStride<float, K>;
  const float* a_row = a + tile_row(0, 0) * stride;
  const float* b_row = b + tile_column(0, 0, 0) * stride;
#pragma unroll 2
  for (int k = 0; k < K; k += 4) {
    float4 left[Strips][2];
#pragma unroll
    for (int s = 0; s < Strips; ++s)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        left[s][half] = *reinterpret_cast<const float4*>(a_row + (16 * s + 8 * half) * stride + k);
#pragma unroll
    for (int p = 0; p < Panels; ++p)
#pragma unroll
      for (int j = 0; j < 4; ++j) {  // the lane's columns 8 (j / 2) + j mod 2 of the panel
        const float4 right = *reinterpret_cast<const float4*>(b_row + (16 * p + 8 * (j / 2) + j % 2) * stride + k);
#pragma unroll
        for (int s = 0; s < Strips; ++s)
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            float& sum = c[p][s][j / 2][2 * half + j % 2];
            sum = fmaf(left[s][half].x, right.x, sum);
            sum = fmaf(left[s][half].y, right.y, sum);
            sum = fmaf(left[s][half].z, right.z, sum);
            sum = fmaf(left[s][half].w, right.w, sum);
          }
      }
  }
}

template <int Stride, int Steps, int Strips>
FORETOKEN_DEVICE void add_panel(const Factor<BFloat16> (&a)[Steps][Strips], const BFloat16* b, float (&c)[Strips][2][4]) {
  const int lane = lane_index();
  const std::uint32_t b_row = shared_address(b + (lane & 15) * Stride + (lane >> 4) * 8);
#pragma unroll
  for (int k = 0; k < Steps; ++k) {
    std::uint32_t right[4];
    load_matrices_transposed(right, b_row + 2 * (k * 16 * Stride));
#pragma unroll
    for (int s = 0; s < Strips; ++s) {
      mma(c[s][0], a[k][s].x, right[0], right[1]);
      mma(c[s][1], a[k][s].x, right[2], right[3]);
    }
  }
}

template <int Stride, int Steps, int Strips>
FORETOKEN_DEVICE void add_panel(const Factor<float> (&a)[Steps][Strips], const float* b, float (&c)[Strips][2][4]) {
  const float* b_row = b + tile_column(0, 0, 0);
#pragma unroll
  for (int k = 0; k < 16 * Steps; ++k) {
    // Number k of a row is with one of the four lanes that share the row.
    const int lane = (lane_index() & ~3) + k % 8 / 2, at = k % 16 / 8 * 4 + k % 2;
    const float2 right[2] = {*reinterpret_cast<const float2*>(b_row + k * Stride),
                             *reinterpret_cast<const float2*>(b_row + k * Stride + 8)};
#pragma unroll
    for (int s = 0; s < Strips; ++s)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float left = shuffle(a[k / 16][s].x[at + 2 * half], lane);
#pragma unroll
        for (int tile = 0; tile < 2; ++tile) {
          c[s][tile][2 * half] = fmaf(left, right[tile].x, c[s][tile][2 * half]);
          c[s][tile][2 * half + 1] = fmaf(left, right[tile].y, c[s][tile][2 * half + 1]);
        }
      }
  }
}

}  // namespace detail

#else

namespace detail {

/// Waits for all lanes of the warp; then one of them calls compute(what each lane brought) for all.
template <typename Mine, typename Compute>
void once_per_warp(int kind, Mine mine, const Compute& compute) {
  struct Entry {
    Mine mine;
    bool done;
  } entry{mine, false};
  Entry* self = &entry;
  const std::byte* slots = Emulator::exchange(kind, &self, sizeof self);
  if (entry.done) return;
  Mine all[kWarp];
  for (int lane = 0; lane < kWarp; ++lane) {
    Entry* other;
    std::memcpy(&other, slots + lane * Emulator::kSlot, sizeof other);
    other->done = true;
    all[lane] = other->mine;
  }
  compute(all);
}

/// c (Rows, Columns) += a (Rows, K) · b (K, Columns), k after k.
template <int Rows, int Columns, int K>
void add_dense(const float* a, const float* b, float* c) {
  for (int row = 0; row < Rows; ++row) {
    float sum[Columns];
    std::memcpy(sum, c + row * Columns, sizeof sum);
    for (int k = 0; k < K; ++k) {
      const float left = a[row * K + k];
      const float* right = b + k * Columns;
      for (int n = 0; n < Columns; ++n) sum[n] += left * right[n];
    }
    std::memcpy(c + row * Columns, sum, sizeof sum);
  }
}

/// Calls f(row, column, element) for all that a warp holds of strips and panels.
template <int Panels, int Strips, typename Function>
void for_elements(float (*const (&lanes)[kWarp])[Strips][2][4], const Function& f) {
  for (int lane = 0; lane < kWarp; ++lane)
    for (int p = 0; p < Panels; ++p)
      for (int s = 0; s < Strips; ++s)
        for (int i = 0; i < 8; ++i)
          f(16 * s + lane / 4 + i % 4 / 2 * 8, 16 * p + i / 4 * 8 + lane % 4 * 2 + i % 2, lanes[lane][p][s][i / 4][i % 4]);
}

template <int K, typename T, int Panels, int Strips>
void add_product(const T* a, const T* b, float (&c)[Panels][Strips][2][4]) {
  struct Operands {
    const T *a, *b;
    float (*c)[Strips][2][4];
  };
  once_per_warp(16, Operands{a, b, c}, [](const Operands (&all)[kWarp]) {
    constexpr int rows = 16 * Strips, columns = 16 * Panels, stride = kTileStride<T, K>;
    static thread_local float left[rows * K], right[K * columns], sums[rows * columns];
    for (int row = 0; row < rows; ++row)
      for (int k = 0; k < K; ++k) left[row * K + k] = widen(all[0].a[row * stride + k]);
    for (int column = 0; column < columns; ++column)
      for (int k = 0; k < K; ++k) right[k * columns + column] = widen(all[0].b[column * stride + k]);
    float(*lanes[kWarp])[Strips][2][4];
    for (int lane = 0; lane < kWarp; ++lane) lanes[lane] = all[lane].c;
    for_elements<Panels>(lanes, [&](int row, int column, float& x) { sums[row * columns + column] = x; });
    add_dense<rows, columns, K>(left, right, sums);
    for_elements<Panels>(lanes, [&](int row, int column, float& x) { x = sums[row * columns + column]; });
  });
}

template <int Stride, typename T, int Steps, int Strips>
void add_panel(const Factor<T> (&a)[Steps][Strips], const T* b, float (&c)[Strips][2][4]) {
  struct Operands {
    const Factor<T> (*a)[Strips];
    const T* b;
    float (*c)[Strips][2][4];
  };
  once_per_warp(17, Operands{a, b, &c}, [](const Operands (&all)[kWarp]) {
    constexpr int rows = 16 * Strips, K = 16 * Steps;
    static thread_local float left[rows * K], right[K * 16], sums[rows * 16];
    for (int lane = 0; lane < kWarp; ++lane)
      for (int k = 0; k < Steps; ++k)
        for (int s = 0; s < Strips; ++s)
          for (int i = 0; i < 8; ++i) {
            const Factor<T>& factor = all[lane].a[k][s];
            float& x = left[(16 * s + lane / 4 + i % 4 / 2 * 8) * K + 16 * k + i / 4 * 8 + lane % 4 * 2 + i % 2];
            if constexpr (sizeof(T) == 4) x = factor.x[i];
            else x = float_of_bits(factor.x[i / 2] >> (16 * (i % 2)) << 16);
          }
    for (int k = 0; k < K; ++k)
      for (int column = 0; column < 16; ++column) right[k * 16 + column] = widen(all[0].b[k * Stride + column]);
    float(*lanes[kWarp])[Strips][2][4];
    for (int lane = 0; lane < kWarp; ++lane) lanes[lane] = all[lane].c;
    for_elements<1>(lanes, [&](int row, int column, float& x) { sums[row * 16 + column] = x; });
    add_dense<rows, 16, K>(left, right, sums);
    for_elements<1>(lanes, [&](int row, int column, float& x) { x = sums[row * 16 + column]; });
  });
}

}  // namespace detail

#endif

/// c (16 Strips, 16 Panels) += a · bᵀ; a (16 Strips, K) and b (16 Panels, K) in shared memory.
template <int K, typename T, int Panels, int Strips>
FORETOKEN_DEVICE void multiply_rows(const T* a, const T* b, float (&c)[Panels][Strips][2][4]) {
  detail::add_product<K>(a, b, c);
}

/// c (16 Strips, 16) += a (16 Strips, 16 Steps) · b (16 Steps, 16 of Columns); b in shared memory.
template <int Columns, typename T, int Steps, int Strips>
FORETOKEN_DEVICE void multiply_columns(const Factor<T> (&a)[Steps][Strips], const T* b, float (&c)[Strips][2][4]) {
  detail::add_panel<kTileStride<T, Columns>>(a, b, c);
}

/// The compiler moves no access to memory past this, which keeps it from loading so far ahead that registers run out.
FORETOKEN_DEVICE void limit_prefetch() {
#ifdef __CUDA_ARCH__
  __syncwarp();
#endif
}

struct QuadGreatest {
  FORETOKEN_DEVICE float operator()(float a, float b) const { return fmaxf(a, b); }
};
struct QuadAdd {
  FORETOKEN_DEVICE float operator()(float a, float b) const { return a + b; }
};

/// The four lanes that share rows combine their values: neighbours first, then pairs.
template <typename Operation, int Strips>
FORETOKEN_DEVICE void combine_rows(float (&x)[Strips][2], Operation operation) {
#ifdef __CUDACC__
#pragma unroll
  for (int s = 0; s < Strips; ++s)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      x[s][half] = operation(x[s][half], shuffle_xor(x[s][half], 1));
      x[s][half] = operation(x[s][half], shuffle_xor(x[s][half], 2));
    }
#else
  detail::once_per_warp(18, &x, [&](float (*const (&all)[kWarp])[Strips][2]) {
    for (int lane = 0; lane < kWarp; lane += 4)
      for (int s = 0; s < Strips; ++s)
        for (int half = 0; half < 2; ++half) {
          const auto value = [&](int i) { return (*all[lane + i])[s][half]; };
          const float total = operation(operation(value(0), value(1)), operation(value(2), value(3)));
          for (int i = 0; i < 4; ++i) (*all[lane + i])[s][half] = total;
        }
  });
#endif
}

}  // namespace foretoken::cuda
