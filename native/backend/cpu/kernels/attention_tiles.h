#pragma once

#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/kernels/units.h"

// The two products that attention consists of, in register tiles. Every output element is one chain of additions, so
// the shape of the tile and what else is in it do not show in the bits. bfloat16 is multiplied as bfloat16, in pairs,
// and added up in float32.

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

constexpr int kQueryTile = 24, kGradientTile = 48;   // see Kernels

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

/// scores[r][16 p + lane] = Σ_u q[r][u] · keys[p][u][lane], in the order of the units u. Meanwhile the same places of
/// `ahead` are asked for, a cache line per page and unit.
template <int R, int P, typename T>
__attribute__((noinline)) void dot_tile(const Word* q, std::int64_t q_stride, const T* const* keys,
                                        const T* const* ahead, int units, float* scores, std::int64_t scores_stride) {
  const T *key[P], *next[P];
  Vec total[R][P];
#pragma GCC unroll 8
  for (int p = 0; p < P; ++p) key[p] = keys[p], next[p] = ahead[p];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) total[r][p] = zero();
  for (int u = 0; u < units; ++u) {
    const std::int64_t at = (std::int64_t)u * kLanes * kUnit<T>;
    Units k[P];
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) k[p] = load_units(key[p] + at);
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) __builtin_prefetch(next[p] + at);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Units query = broadcast_unit(q[r * q_stride + u]);
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) total[r][p] = multiply_add<T>(query, k[p], total[r][p]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) store(scores + r * scores_stride + p * kLanes, total[r][p]);
}

/// The same for any number of rows and pages; q is rows of units along d, keys[p] is (D / unit, 16) units.
template <typename T>
FORETOKEN_INLINE void dot(const Word* q, std::int64_t q_stride, int rows, const T* const* keys, const T* const* ahead,
                          int pages, int units, float* scores, std::int64_t scores_stride) {
  for_pieces<kTilePages>(pages, [&](int p, auto P) {
    for_pieces<kTileRows>(rows, [&](int r, auto R) {
      dot_tile<decltype(R)::value, decltype(P)::value>(q + r * q_stride, q_stride, keys + p, ahead + p, units,
                                                       scores + r * scores_stride + p * kLanes, scores_stride);
    });
  });
}

/// What a sum of `mix` runs over: numbers begin … end − 1, of which 16 after the other lie in blocks x[0], x[1], …, each
/// (16 / unit, x_stride) units; unit u of row r's coefficients is coefficients[r · row_stride + u · unit_stride].
template <typename T>
struct Mixture {
  const Word* coefficients;
  std::int64_t row_stride, unit_stride;
  const T* const* x;
  const T* const* ahead;  // blocks whose same places are asked for meanwhile
  std::int64_t x_stride;
  int begin, end;
};

/// out[r][c] += Σ_k coefficient[r][k] · x[k][c] for R rows and V vectors of columns, in the order of k. Where the sum
/// begins in the middle of a unit, the coefficient before it is zero.
template <int R, int V, typename T, typename Lanes>
__attribute__((noinline)) void mix_tile(const Mixture<T>& m, std::int64_t row, std::int64_t column, float* out,
                                        std::int64_t out_stride, Lanes lanes) {
  constexpr int block_units = kLanes / kUnit<T>;
  Vec total[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) total[r][v] = load(out + r * out_stride + v * kLanes, lanes);
  const Word* const coefficients = m.coefficients + row * m.row_stride;
  const auto step = [&](int unit, const T* x, auto whole) __attribute__((always_inline)) {
    Units value[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      value[v] = load_units(x + v * kLanes * kUnit<T>, lanes);
      if constexpr (!decltype(whole)::value) value[v] = first_halves(value[v]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Units coefficient = broadcast_unit(coefficients[r * m.row_stride + unit * m.unit_stride]);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) total[r][v] = multiply_add<T>(coefficient, value[v], total[r][v]);
    }
  };
  const int last = m.end / kUnit<T>;
  for (int unit = m.begin / kUnit<T>; unit < last;) {
    const int block = unit / block_units, block_end = (block + 1) * block_units;
    const std::int64_t from = ((unit - block * block_units) * m.x_stride + column) * kUnit<T>;
    const T *x = m.x[block] + from, *next = m.ahead[block] + from;
    for (const int stop = last < block_end ? last : block_end; unit < stop; ++unit) {
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) __builtin_prefetch(next + v * kLanes * kUnit<T>);
      step(unit, x, Count<1>{});
      x += m.x_stride * kUnit<T>;
      next += m.x_stride * kUnit<T>;
    }
  }
  if (m.end % kUnit<T> != 0)
    step(last, m.x[last / block_units] + (last % block_units * m.x_stride + column) * kUnit<T>, Count<0>{});
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) store(out + r * out_stride + v * kLanes, total[r][v], lanes);
}

/// The same for any number of rows and columns.
template <typename T>
FORETOKEN_INLINE void mix(const Mixture<T>& mixture, int rows, int cols, float* out, std::int64_t out_stride) {
  for_pieces<kTileVectors>(cols / kLanes, [&](int v, auto Vectors) {
    for_pieces<kTileRows>(rows, [&](int r, auto R) {
      mix_tile<decltype(R)::value, decltype(Vectors)::value>(mixture, r, v * kLanes,
                                                             out + r * out_stride + v * kLanes, out_stride, Full{});
    });
  });
  const int c = cols / kLanes * kLanes;
  if (c == cols) return;
  for_pieces<kTileRows>(rows, [&](int r, auto R) {
    mix_tile<decltype(R)::value, 1>(mixture, r, c, out + r * out_stride + c, out_stride, Part{cols - c});
  });
}

/// The two products as attention_forward takes them.
template <typename T>
struct VectorProducts {
  static constexpr int rows_beyond = 0;   // after the last one that are read and written, too

  static FORETOKEN_INLINE void dot(const Word* q, std::int64_t q_stride, int rows, const T* const* keys,
                                   const T* const* ahead, int pages, int units, float* scores,
                                   std::int64_t scores_stride) {
    cpu::dot(q, q_stride, rows, keys, ahead, pages, units, scores, scores_stride);
  }
  static FORETOKEN_INLINE void mix(const Mixture<T>& mixture, int rows, int cols, float* out, std::int64_t out_stride) {
    cpu::mix(mixture, rows, cols, out, out_stride);
  }
};

/// The first position that a token at `position` sees.
FORETOKEN_INLINE std::int32_t first_visible(std::int32_t position, std::int32_t window) {
  return window > 0 && position >= window ? position - window + 1 : 0;
}

}  // namespace
}  // namespace foretoken::cpu
