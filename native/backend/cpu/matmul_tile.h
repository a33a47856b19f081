#pragma once

// A tile of the matrix product: the sums that registers hold, written once for all instruction sets.
//
// Everything sits in an anonymous namespace: each kernel file is compiled for another instruction set, and no two may
// share a function. A kernel file gives its `Vectors`:
//   Floats, Words, Halves     vectors of `lanes` float, uint32_t, uint16_t
//   tile_rows, panel_vectors  the tile of sums: rows by vectors
//   group_rows                of a packed left operand: whole tiles and whole vectors
//   broadcast(word)           a unit in every lane
//   widen(halves)             Words of the same numbers
//   multiply_add(a, b, sum)   sum + a b
// and combines them with a way to multiply units, a `Product`: Float32 or WidenedBFloat16 below, or one of its own.

#include <stdint.h>

#include "backend/cpu/matmul_kernels.h"

namespace foretoken::cpu {
namespace {

// How far ahead of its use a panel is asked for, if it comes alone or among others: the processor's own prefetching
// starts anew at every 4 KiB, and few rows are done with a line before the next has come.
constexpr int64_t kPrefetchBytes = 12288, kPrefetchBytesOfEach = 4096;

#define FORETOKEN_INLINE inline __attribute__((always_inline))

template <typename Value>
FORETOKEN_INLINE Value load(const void* from) {
  Value value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

template <typename Value>
FORETOKEN_INLINE void store(void* to, Value value) { __builtin_memcpy(to, &value, sizeof value); }

/// Rounded to bfloat16, to nearest with ties to even: the same bits as `BFloat16(value)`.
template <typename Vectors>
FORETOKEN_INLINE typename Vectors::Halves round_to_bfloat16(typename Vectors::Floats value) {
  using Words = typename Vectors::Words;
  const Words u = reinterpret_cast<Words>(value);
  const Words rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  const Words result = (u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : rounded;
  return __builtin_convertvector(result, typename Vectors::Halves);
}

/// Units that are float32 numbers.
template <typename Vectors>
struct Float32 : Vectors {
  using typename Vectors::Floats, typename Vectors::Words, typename Vectors::Halves;
  static constexpr bool bfloat16 = false;
  static constexpr int phases = 1;   // steps that a unit takes
  template <int phase>
  static FORETOKEN_INLINE Floats multiply_add(Words a, Words b, Floats sum) {
    return Vectors::multiply_add(reinterpret_cast<Floats>(a), reinterpret_cast<Floats>(b), sum);
  }
  static FORETOKEN_INLINE Halves narrow(Floats value) { return round_to_bfloat16<Vectors>(value); }
};

/// Units that are pairs of bfloat16, whose halves are widened and multiplied one after the other.
template <typename Vectors>
struct WidenedBFloat16 : Vectors {
  using typename Vectors::Floats, typename Vectors::Words, typename Vectors::Halves;
  static constexpr bool bfloat16 = true;
  static constexpr int phases = 2;
  template <int phase>
  static FORETOKEN_INLINE Floats multiply_add(Words a, Words b, Floats sum) {
    const Words left = phase == 0 ? a << 16 : a & 0xffff0000u;
    const Words right = phase == 0 ? b << 16 : b & 0xffff0000u;
    return Vectors::multiply_add(reinterpret_cast<Floats>(left), reinterpret_cast<Floats>(right), sum);
  }
  static FORETOKEN_INLINE Halves narrow(Floats value) { return round_to_bfloat16<Vectors>(value); }
};

template <int index>
struct Phase { static constexpr int value = index; };

/// A Block's quantities for one tile of the output, all pointers being at the tile's first element.
struct Tile {
  const char* a;
  int64_t a_row_bytes, a_unit_bytes;
  const char* b;
  int64_t units, panel_units;
  bool a_half_unit;
  const float* start;
  int64_t start_stride;
  const float* bias;
  const float* residual;
  int64_t residual_stride;
  void* out;
  int64_t out_stride;
  bool out_bfloat16;
  int64_t columns;   // of the output; a panel's further ones are only computed
  const char* ahead; // of the right operand, asked for while this tile is computed, `ahead_step` bytes with every unit
  int64_t ahead_step;
};

/// Sums of `rows` rows by `vectors` vectors of columns (of one panel, or of neighbouring ones):
/// sum[r][c] = start[r][c] + Σ_k a[r][k] b[k][c], k in order; then the epilogue.
template <typename Product, int rows, int vectors>
__attribute__((noinline)) void multiply_tile(const Tile& tile) {
  using Floats = typename Product::Floats;
  using Words = typename Product::Words;
  using Halves = typename Product::Halves;
  constexpr int lanes = Product::lanes, panel_vectors = Product::panel_vectors, width_bytes = panel_vectors * lanes * 4;
  const char* a = tile.a;
  const char* b = tile.b;
  const char* ahead = tile.ahead;
  const int64_t row_bytes = tile.a_row_bytes, unit_bytes = tile.a_unit_bytes;
  const int64_t panel_bytes = tile.panel_units * width_bytes;
  const auto right_at = [&](int v) __attribute__((always_inline)) {
    return b + v / panel_vectors * panel_bytes + v % panel_vectors * lanes * 4;
  };

  Floats sum[rows][vectors];
#pragma GCC unroll 16
  for (int v = 0; v < vectors; ++v) {
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) sum[r][v] = Floats{};
  }
  if (tile.start != nullptr) {
#pragma GCC unroll 16
    for (int v = 0; v < vectors; ++v) {
      if (v * lanes >= tile.columns) break;
#pragma GCC unroll 16
      for (int r = 0; r < rows; ++r) sum[r][v] = load<Floats>(tile.start + r * tile.start_stride + v * lanes);
    }
  }

  const auto step = [&](auto phase, auto fetch) __attribute__((always_inline)) {
    Words right[vectors];
#pragma GCC unroll 16
    for (int v = 0; v < vectors; ++v) right[v] = load<Words>(right_at(v));
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
      const Words left = Product::broadcast(fetch(a + r * row_bytes));
#pragma GCC unroll 16
      for (int v = 0; v < vectors; ++v) {
        sum[r][v] = Product::template multiply_add<decltype(phase)::value>(left, right[v], sum[r][v]);
      }
    }
  };
  const auto whole = [](const char* from) __attribute__((always_inline)) { return load<uint32_t>(from); };
  const auto half = [](const char* from) __attribute__((always_inline)) -> uint32_t { return load<uint16_t>(from); };
  for (int64_t unit = tile.units - tile.a_half_unit; unit > 0; --unit) {
    step(Phase<0>{}, whole);
    if constexpr (Product::phases == 2) step(Phase<1>{}, whole);
#pragma GCC unroll 16
    for (int v = 0; v < vectors; ++v)
      // Into the second-level cache: the first level has few places for lines under way, and the loads need them.
      __builtin_prefetch(ahead + v / panel_vectors * panel_bytes + v % panel_vectors * lanes * 4, 0, 2);
    ahead += tile.ahead_step;
    a += unit_bytes;
    b += width_bytes;
  }
  if constexpr (Product::bfloat16) {
    if (tile.a_half_unit) {
      step(Phase<0>{}, half);
      if constexpr (Product::phases == 2) step(Phase<1>{}, half);
    }
  }

#pragma GCC unroll 16
  for (int v = 0; v < vectors; ++v) {
    if (v * lanes >= tile.columns) break;
    if (tile.bias != nullptr) {
      const Floats bias = load<Floats>(tile.bias + v * lanes);
#pragma GCC unroll 16
      for (int r = 0; r < rows; ++r) sum[r][v] += bias;
    }
    if (tile.residual != nullptr) {
#pragma GCC unroll 16
      for (int r = 0; r < rows; ++r) sum[r][v] += load<Floats>(tile.residual + r * tile.residual_stride + v * lanes);
    }
    if (tile.out_bfloat16) {
      uint16_t* const out = static_cast<uint16_t*>(tile.out) + v * lanes;
#pragma GCC unroll 16
      for (int r = 0; r < rows; ++r) store<Halves>(out + r * tile.out_stride, Product::narrow(sum[r][v]));
    } else {
      float* const out = static_cast<float*>(tile.out) + v * lanes;
#pragma GCC unroll 16
      for (int r = 0; r < rows; ++r) store<Floats>(out + r * tile.out_stride, sum[r][v]);
    }
  }
}

/// A tile whose last vector is wider than the matrix: `whole` computes it beside, and what there is room for is copied.
template <typename Product>
__attribute__((noinline)) void multiply_edge_tile(void (*whole)(const Tile&), const Tile& tile, int rows, int width) {
  using Floats = typename Product::Floats;
  float sums[Product::tile_rows * Product::panel_vectors * Product::lanes] = {};
  Tile inner = tile;
  if (tile.start != nullptr) {
    for (int r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < tile.columns; ++c) sums[r * width + c] = tile.start[r * tile.start_stride + c];
    }
    inner.start = sums;
    inner.start_stride = width;
  }
  inner.bias = inner.residual = nullptr;
  inner.out = sums;
  inner.out_stride = width;
  inner.out_bfloat16 = false;
  inner.columns = width;
  whole(inner);
  for (int r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < tile.columns; ++c) {
      float value = sums[r * width + c];
      if (tile.bias != nullptr) value += tile.bias[c];
      if (tile.residual != nullptr) value += tile.residual[r * tile.residual_stride + c];
      const int64_t at = r * tile.out_stride + c;
      if (tile.out_bfloat16) {
        const Floats everywhere = reinterpret_cast<Floats>(Product::broadcast(load<uint32_t>(&value)));
        static_cast<uint16_t*>(tile.out)[at] = Product::narrow(everywhere)[0];
      } else {
        static_cast<float*>(tile.out)[at] = value;
      }
    }
  }
}

}  // namespace
}  // namespace foretoken::cpu
