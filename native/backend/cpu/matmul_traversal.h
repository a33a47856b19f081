#pragma once

// The one traversal of the matrix product, instantiated by each kernel file for its own vectors. Everything sits in an
// anonymous namespace: each kernel file is compiled for another instruction set, and no two may share a function.
//
// A kernel file gives its `Vectors`:
//   Floats, Words, Halves     vectors of `lanes` float, uint32_t, uint16_t
//   tile_rows, panel_vectors  the tile of sums held in registers: rows by vectors
//   broadcast(word)           a unit in every lane
//   multiply_add(a, b, sum)   sum + a b
// and combines them with a way to multiply units, a `Product`: Float32 or WidenedBFloat16 below, or one of its own.

#include <stdint.h>

#include "backend/cpu/matmul_kernels.h"

namespace foretoken::cpu {
namespace {

#define FORETOKEN_INLINE inline __attribute__((always_inline))

template <typename Value>
FORETOKEN_INLINE Value load(const void* from) {
  Value value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

template <typename Value>
FORETOKEN_INLINE void store(void* to, Value value) { __builtin_memcpy(to, &value, sizeof value); }

/// A float rounded to bfloat16, to nearest with ties to even; the same bits as `BFloat16(value)`.
FORETOKEN_INLINE uint16_t round_to_bfloat16(float value) {
  const uint32_t u = load<uint32_t>(&value);
  if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((u >> 16) | 0x40u);
  return static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

FORETOKEN_INLINE float widen(uint16_t bits) {
  const uint32_t u = static_cast<uint32_t>(bits) << 16;
  return load<float>(&u);
}

/// Units that are float32 numbers.
template <typename Vectors>
struct Float32 : Vectors {
  using typename Vectors::Floats, typename Vectors::Words;
  static constexpr bool bfloat16 = false;
  static constexpr int phases = 1;   // steps that a unit takes
  template <int phase>
  static FORETOKEN_INLINE Floats multiply_add(Words a, Words b, Floats sum) {
    return Vectors::multiply_add(reinterpret_cast<Floats>(a), reinterpret_cast<Floats>(b), sum);
  }
};

/// Units that are pairs of bfloat16, whose halves are widened and multiplied one after the other.
template <typename Vectors>
struct WidenedBFloat16 : Vectors {
  using typename Vectors::Floats, typename Vectors::Words;
  static constexpr bool bfloat16 = true;
  static constexpr int phases = 2;
  template <int phase>
  static FORETOKEN_INLINE Floats multiply_add(Words a, Words b, Floats sum) {
    const Words left = phase == 0 ? a << 16 : a & 0xffff0000u;
    const Words right = phase == 0 ? b << 16 : b & 0xffff0000u;
    return Vectors::multiply_add(reinterpret_cast<Floats>(left), reinterpret_cast<Floats>(right), sum);
  }
};

template <int index>
struct Phase { static constexpr int value = index; };

/// Product::Floats of which only the first `count` lanes are in memory.
template <typename Product>
FORETOKEN_INLINE typename Product::Floats load_lanes(const float* from, int64_t count) {
  if (count >= Product::lanes) return load<typename Product::Floats>(from);
  float lanes[Product::lanes] = {};
  for (int64_t lane = 0; lane < count; ++lane) lanes[lane] = from[lane];
  return load<typename Product::Floats>(lanes);
}

template <typename Product>
FORETOKEN_INLINE void store_lanes(float* to, typename Product::Floats value, int64_t count) {
  if (count >= Product::lanes) return store<typename Product::Floats>(to, value);
  float lanes[Product::lanes];
  store<typename Product::Floats>(lanes, value);
  for (int64_t lane = 0; lane < count; ++lane) to[lane] = lanes[lane];
}

template <typename Product>
FORETOKEN_INLINE void store_lanes(uint16_t* to, typename Product::Floats value, int64_t count) {
  using Words = typename Product::Words;
  using Halves = typename Product::Halves;
  const Words u = reinterpret_cast<Words>(value);
  const Words rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  const Halves halves = __builtin_convertvector((u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : rounded, Halves);
  if (count >= Product::lanes) return store<Halves>(to, halves);
  uint16_t lanes[Product::lanes];
  store<Halves>(lanes, halves);
  for (int64_t lane = 0; lane < count; ++lane) to[lane] = lanes[lane];
}

/// One tile: sums of `Rows` rows by `Panels` neighbouring panels of `Vectors` vectors each, all held in registers.
/// sum[r][c] = start + Σ_k a[r][k] b[k][c], k in order.
template <typename Product, int Rows, int Panels, int Vectors>
void multiply_tile(const Block& block, const char* a, int64_t row, const char* b, int64_t column) {
  using Floats = typename Product::Floats;
  using Words = typename Product::Words;
  constexpr int lanes = Product::lanes;
  constexpr int width = Vectors * lanes;
  const int64_t panel_bytes = block.units * width * 4;
  const int64_t row_bytes = block.a_row_bytes;
  const int64_t unit_bytes = block.a_unit_bytes;

  Floats sum[Rows][Panels * Vectors];
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < Panels * Vectors; ++v) sum[r][v] = Floats{};
  }
  if (block.start != nullptr) {
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 16
      for (int v = 0; v < Panels * Vectors; ++v) {
        sum[r][v] = load_lanes<Product>(block.start + (row + r) * block.start_stride + column + v * lanes,
                                        block.columns - column - v * lanes);
      }
    }
  }

  const auto step = [&](auto phase, auto fetch) __attribute__((always_inline)) {
    Words right[Panels * Vectors];
#pragma GCC unroll 16
    for (int v = 0; v < Panels * Vectors; ++v) right[v] = load<Words>(b + (v / Vectors) * panel_bytes + (v % Vectors) * lanes * 4);
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
      const Words left = Product::broadcast(fetch(a + r * row_bytes));
#pragma GCC unroll 16
      for (int v = 0; v < Panels * Vectors; ++v) sum[r][v] = Product::template multiply_add<decltype(phase)::value>(left, right[v], sum[r][v]);
    }
  };
  const auto whole = [](const char* from) __attribute__((always_inline)) { return load<uint32_t>(from); };
  const auto half = [](const char* from) __attribute__((always_inline)) { return static_cast<uint32_t>(load<uint16_t>(from)); };

  for (int64_t unit = block.units - block.a_half_unit; unit > 0; --unit) {
    step(Phase<0>{}, whole);
    if constexpr (Product::phases == 2) step(Phase<1>{}, whole);
    a += unit_bytes;
    b += width * 4;
  }
  if constexpr (Product::bfloat16) {
    if (block.a_half_unit) {
      step(Phase<0>{}, half);
      if constexpr (Product::phases == 2) step(Phase<1>{}, half);
    }
  }

#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < Panels * Vectors; ++v) {
      const int64_t at = column + v * lanes;
      const int64_t count = block.columns - at;
      Floats value = sum[r][v];
      if (block.bias != nullptr) value += load_lanes<Product>(block.bias + at, count);
      if (block.residual != nullptr) value += load_lanes<Product>(block.residual + (row + r) * block.residual_stride + at, count);
      if (block.out_bfloat16) store_lanes<Product>(static_cast<uint16_t*>(block.out) + (row + r) * block.out_stride + at, value, count);
      else store_lanes<Product>(static_cast<float*>(block.out) + (row + r) * block.out_stride + at, value, count);
    }
  }
}

/// How many panels a tile of so many rows spans: few rows alone would leave the multipliers waiting for each other.
template <typename Product>
constexpr int panels_of(int rows) {
  constexpr int sums = Product::tile_rows * Product::panel_vectors;
  const int panels = sums / (rows * Product::panel_vectors);
  return panels >= 4 ? 4 : panels >= 2 ? 2 : 1;
}

template <typename Product, int Rows>
void multiply_rows(const Block& block, const char* a, int64_t row) {
  constexpr int width = Product::panel_vectors * Product::lanes;
  constexpr int panels = panels_of<Product>(Rows);
  const int64_t column_bytes = block.units * 4;
  int64_t column = block.column_begin;
  if constexpr (panels > 1) {
    for (; column + panels * width <= block.column_end; column += panels * width) {
      multiply_tile<Product, Rows, panels, Product::panel_vectors>(block, a, row, block.b + column * column_bytes, column);
    }
  }
  for (; column < block.column_end; column += width) {
    const char* b = block.b + column * column_bytes;
    const int64_t vectors = (block.columns - column + Product::lanes - 1) / Product::lanes;   // the last panel is narrower
    if (vectors >= Product::panel_vectors) {
      multiply_tile<Product, Rows, 1, Product::panel_vectors>(block, a, row, b, column);
    } else if (Product::panel_vectors == 3 && vectors == 2) {
      multiply_tile<Product, Rows, 1, 2>(block, a, row, b, column);
    } else {
      multiply_tile<Product, Rows, 1, 1>(block, a, row, b, column);
    }
  }
}

template <typename Product>
void multiply_block(const Block& block) {
  constexpr int tile_rows = Product::tile_rows;
  static_assert(tile_rows <= 8 && Product::panel_vectors <= 3);
  int64_t row = block.row_begin;
  while (row < block.row_end) {
    // Even tiles: 9 rows are 5 and 4 rather than 8 and 1.
    const int64_t left = block.row_end - row;
    const int64_t tiles = (left + tile_rows - 1) / tile_rows;
    const int64_t rows = block.a_in_tiles ? (left < tile_rows ? left : tile_rows) : (left + tiles - 1) / tiles;
    const char* a = block.a_in_tiles ? block.a + row / tile_rows * block.a_tile_bytes : block.a + row * block.a_row_bytes;
    switch (rows) {
      case 1: multiply_rows<Product, 1>(block, a, row); break;
      case 2: multiply_rows<Product, 2>(block, a, row); break;
      case 3: multiply_rows<Product, 3>(block, a, row); break;
      case 4: multiply_rows<Product, 4>(block, a, row); break;
      case 5: if constexpr (tile_rows >= 5) multiply_rows<Product, 5>(block, a, row); break;
      case 6: if constexpr (tile_rows >= 6) multiply_rows<Product, 6>(block, a, row); break;
      case 7: if constexpr (tile_rows >= 7) multiply_rows<Product, 7>(block, a, row); break;
      case 8: if constexpr (tile_rows >= 8) multiply_rows<Product, 8>(block, a, row); break;
    }
    row += rows;
  }
}

/// Element (k, column) of a PackJob's source as the bits of a float32 or bfloat16.
template <bool Bf16>
FORETOKEN_INLINE uint32_t packed_element(const PackJob& job, int64_t k, int64_t column) {
  const int64_t index = job.transposed ? column * job.stride + k : k * job.stride + column;
  if constexpr (Bf16) {
    if (job.source_bfloat16) return static_cast<const uint16_t*>(job.source)[index];
    return round_to_bfloat16(static_cast<const float*>(job.source)[index]);
  } else {
    const float value = job.source_bfloat16 ? widen(static_cast<const uint16_t*>(job.source)[index])
                                            : static_cast<const float*>(job.source)[index];
    return load<uint32_t>(&value);
  }
}

template <bool Bf16>
void pack_panel(const PackJob& job) {
  constexpr int64_t per_unit = Bf16 ? 2 : 1;
  char* into = job.into;
  for (int64_t k = job.k_begin; k < job.k_end; k += per_unit) {
    for (int64_t lane = 0; lane < job.width; ++lane, into += 4) {
      const int64_t column = job.column_begin + lane;
      uint32_t unit = 0;
      if (column < job.column_end) {
        unit = packed_element<Bf16>(job, k, column);
        if (Bf16 && k + 1 < job.k_end) unit |= packed_element<Bf16>(job, k + 1, column) << 16;
      }
      store(into, unit);
    }
  }
}

template <typename Product>
constexpr MatmulKernels kernels_of() {
  return {Product::tile_rows, Product::lanes, Product::panel_vectors * Product::lanes, multiply_block<Product>,
          pack_panel<Product::bfloat16>};
}

}  // namespace
}  // namespace foretoken::cpu
