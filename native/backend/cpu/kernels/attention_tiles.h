#pragma once

#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/kernels/vec.h"

// The two products that attention consists of, in register tiles. Every output element is one chain of additions, so
// the shape of the tile and what else is in it do not show in the bits.

namespace foretoken::cpu {
namespace {

// What fits into the registers beside the operands.
#if defined(__AVX512F__)
constexpr int kTileRows = 6, kTilePages = 4, kTileVectors = 4;
#elif defined(__AVX2__) || defined(__aarch64__)
constexpr int kTileRows = 4, kTilePages = 1, kTileVectors = 1;
#else
constexpr int kTileRows = 2, kTilePages = 1, kTileVectors = 1;
#endif

constexpr std::int64_t padded(std::int64_t count) { return (count + kLanes - 1) / kLanes * kLanes; }

template <int N>
struct Count {
  static constexpr int value = N;
};

template <int Most, typename Function>
FORETOKEN_INLINE void for_rest(int first, int count, const Function& f) {
  if (count == Most) return f(first, Count<Most>{});
  if constexpr (Most > 1) for_rest<Most - 1>(first, count, f);
}

/// Calls f(first, Count) for pieces of `Most`, then once for what is left.
template <int Most, typename Function>
FORETOKEN_INLINE void for_pieces(int count, const Function& f) {
  int i = 0;
  for (; i + Most <= count; i += Most) f(i, Count<Most>{});
  if constexpr (Most > 1) {
    if (i < count) for_rest<Most - 1>(i, count - i, f);
  }
}

/// scores[r][16 p + lane] = Σ_d q[r][d] · keys[p][d][lane], in the order of d.
template <int R, int P, typename T>
__attribute__((noinline)) void dot_tile(const float* q, std::int64_t q_stride, const T* const* keys, int head_dim,
                                        float* scores, std::int64_t scores_stride) {
  const T* key[P];
  Vec total[R][P];
#pragma GCC unroll 8
  for (int p = 0; p < P; ++p) key[p] = keys[p];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) total[r][p] = zero();
  for (int d = 0; d < head_dim; ++d) {
    Vec k[P];
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) k[p] = load(key[p] + d * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Vec query = broadcast(q[r * q_stride + d]);
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) total[r][p] = fma(query, k[p], total[r][p]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) store(scores + r * scores_stride + p * kLanes, total[r][p]);
}

/// The same for any number of rows and pages; keys[p] is (D, 16).
template <typename T>
FORETOKEN_INLINE void dot(const float* q, std::int64_t q_stride, int rows, const T* const* keys, int pages,
                          int head_dim, float* scores, std::int64_t scores_stride) {
  for_pieces<kTilePages>(pages, [&](int p, auto P) {
    for_pieces<kTileRows>(rows, [&](int r, auto R) {
      dot_tile<decltype(R)::value, decltype(P)::value>(q + r * q_stride, q_stride, keys + p, head_dim,
                                                       scores + r * scores_stride + p * kLanes, scores_stride);
    });
  });
}

/// out[r][c] += Σ_k coefficients[r · row_stride + k · k_stride] · x[k][c] for R rows and V vectors of columns, over
/// k = begin … end − 1 in order. Row k of x is row k mod 16 of x[k / 16].
template <int R, int V, typename T, typename Lanes>
__attribute__((noinline)) void mix_tile(const float* coefficients, std::int64_t row_stride, std::int64_t k_stride,
                                        const T* const* x, std::int64_t x_offset, std::int64_t x_stride, int begin,
                                        int end, float* out, std::int64_t out_stride, Lanes lanes) {
  Vec total[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) total[r][v] = load(out + r * out_stride + v * kLanes, lanes);
  for (int block = begin / kLanes; block * kLanes < end; ++block) {
    const int first = block * kLanes < begin ? begin : block * kLanes;
    const int last = end < block * kLanes + kLanes ? end : block * kLanes + kLanes;
    const T* row = x[block] + x_offset + (first - block * kLanes) * x_stride;
    const float* coefficient_of = coefficients + first * k_stride;
    for (int k = first; k < last; ++k, row += x_stride, coefficient_of += k_stride) {
      Vec value[V];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) value[v] = load(row + v * kLanes, lanes);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const Vec coefficient = broadcast(coefficient_of[r * row_stride]);
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) total[r][v] = fma(coefficient, value[v], total[r][v]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) store(out + r * out_stride + v * kLanes, total[r][v], lanes);
}

/// The same for any number of rows and columns.
template <typename T>
FORETOKEN_INLINE void mix(const float* coefficients, std::int64_t row_stride, std::int64_t k_stride, const T* const* x,
                          std::int64_t x_stride, int begin, int end, int rows, int cols, float* out,
                          std::int64_t out_stride) {
  for_pieces<kTileVectors>(cols / kLanes, [&](int v, auto Vectors) {
    for_pieces<kTileRows>(rows, [&](int r, auto R) {
      mix_tile<decltype(R)::value, decltype(Vectors)::value>(coefficients + r * row_stride, row_stride, k_stride, x,
                                                             v * kLanes, x_stride, begin, end,
                                                             out + r * out_stride + v * kLanes, out_stride, Full{});
    });
  });
  const int c = cols / kLanes * kLanes;
  if (c == cols) return;
  for_pieces<kTileRows>(rows, [&](int r, auto R) {
    mix_tile<decltype(R)::value, 1>(coefficients + r * row_stride, row_stride, k_stride, x, c, x_stride, begin, end,
                                    out + r * out_stride + c, out_stride, Part{cols - c});
  });
}

/// The first position that a token at `position` sees.
FORETOKEN_INLINE std::int32_t first_visible(std::int32_t position, std::int32_t window) {
  return window > 0 && position >= window ? position - window + 1 : 0;
}

}  // namespace
}  // namespace foretoken::cpu
