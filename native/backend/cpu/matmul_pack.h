#pragma once

// Rearranging a row-major matrix into panels of units, in the vectors of each instruction set.

#include "backend/cpu/matmul_tile.h"
#include "backend/cpu/transpose.h"

namespace foretoken::cpu {
namespace {

/// `lanes` neighbouring elements: the bits of float32, or of bfloat16 in the low halves.
template <typename Product, bool from_bfloat16>
FORETOKEN_INLINE typename Product::Words load_elements(const void* source, int64_t index) {
  typename Product::Words words;
  if constexpr (from_bfloat16) {
    words = Product::widen(load<typename Product::Halves>(static_cast<const uint16_t*>(source) + index));
    if constexpr (!Product::bfloat16) words <<= 16;
  } else if constexpr (Product::bfloat16) {
    words = Product::widen(Product::narrow(load<typename Product::Floats>(static_cast<const float*>(source) + index)));
  } else {
    words = load<typename Product::Words>(static_cast<const float*>(source) + index);
  }
  return words;
}

/// The same where only `count` elements may be there; the others are zero.
template <typename Product, bool from_bfloat16>
FORETOKEN_INLINE typename Product::Words load_elements(const void* source, int64_t index, int64_t count) {
  if (count >= Product::lanes) return load_elements<Product, from_bfloat16>(source, index);
  constexpr int64_t size = from_bfloat16 ? 2 : 4;
  char padded[Product::lanes * size] = {};
  for (int64_t byte = 0; byte < count * size; ++byte) padded[byte] = static_cast<const char*>(source)[index * size + byte];
  return load_elements<Product, from_bfloat16>(padded, 0);
}

/// Element (k, n) is source[k * stride + n]: a unit's halves come from two rows. Some rows go side by side, so that what
/// is written is contiguous for some lines; the next rows are asked for meanwhile, as jumps defeat the hardware.
template <typename Product, bool from_bfloat16>
void pack_rows(const PackJob& job) {
  constexpr int lanes = Product::lanes, per_unit = Product::bfloat16 ? 2 : 1, k_step = 8 * per_unit;
  const int64_t unit_bytes = job.width * 4;
  for (int64_t k_begin = job.k_begin; k_begin < job.k_end; k_begin += k_step) {
    const int64_t k_end = k_begin + k_step < job.k_end ? k_begin + k_step : job.k_end;
    char* panel = job.into + k_begin / per_unit * unit_bytes;
    for (int64_t first = job.column_begin; first < job.column_end; first += job.width, panel += job.panel_bytes) {
      for (int64_t at = 0; at < job.width; at += lanes) {
        const int64_t column = first + at, left = job.column_end - column;
        char* into = panel + at * 4;
        if (k_end < job.k_end) {
          const char* const source = static_cast<const char*>(job.source);
          for (int64_t k = k_end; k < k_end + k_step; ++k) {
            __builtin_prefetch(source + (k * job.stride + column) * (from_bfloat16 ? 2 : 4));
          }
        }
        const int64_t stride = job.stride;
        int64_t k = k_begin;
        if (left >= lanes) {
          for (int64_t index = k * stride + column; k + per_unit <= k_end; k += per_unit, into += unit_bytes) {
            auto words = load_elements<Product, from_bfloat16>(job.source, index);
            if constexpr (per_unit == 2) words |= load_elements<Product, from_bfloat16>(job.source, index + stride) << 16;
            store(into, words);
            index += per_unit * stride;
          }
        }
        for (; k < k_end; k += per_unit, into += unit_bytes) {
          auto words = load_elements<Product, from_bfloat16>(job.source, k * stride + column, left);
          if (per_unit == 2 && k + 1 < k_end) {
            words |= load_elements<Product, from_bfloat16>(job.source, (k + 1) * stride + column, left) << 16;
          }
          store(into, words);
        }
      }
    }
  }
}

/// `lanes` units of one column from k on, contiguous in the source; those from k_end on are zero.
template <typename Product, bool from_bfloat16>
FORETOKEN_INLINE typename Product::Words load_units(const PackJob& job, int64_t k, int64_t column) {
  constexpr int lanes = Product::lanes;
  if (column >= job.column_end) return typename Product::Words{};
  const int64_t index = column * job.stride + k, count = job.k_end - k;
  if constexpr (!Product::bfloat16) return load_elements<Product, from_bfloat16>(job.source, index, count);
  if (from_bfloat16 && count >= 2 * lanes) {
    return load<typename Product::Words>(static_cast<const uint16_t*>(job.source) + index);
  }
  const auto first = load_elements<Product, from_bfloat16>(job.source, index, count);
  const auto second = load_elements<Product, from_bfloat16>(job.source, index + lanes, count - lanes);
  using Words = typename Product::Words;
  const Words even = shuffle(first, second, every_second<Words>(0));
  return even | shuffle(first, second, every_second<Words>(1)) << 16;
}

/// Element (k, n) is source[n * stride + k]: squares of `lanes` columns by `lanes` units are transposed in registers.
template <typename Product, bool from_bfloat16>
void pack_columns(const PackJob& job) {
  using Words = typename Product::Words;
  constexpr int lanes = Product::lanes, per_unit = Product::bfloat16 ? 2 : 1;
  const int64_t unit_bytes = job.width * 4;
  for (int64_t column = job.column_begin, at = 0; column < job.column_end || at != 0; column += lanes) {
    char* into = job.into + (column - job.column_begin - at) / job.width * job.panel_bytes + at * 4 +
                 job.k_begin / per_unit * unit_bytes;
    for (int64_t k = job.k_begin; k < job.k_end; k += lanes * per_unit) {
      Words square[lanes];
#pragma GCC unroll 16
      for (int c = 0; c < lanes; ++c) square[c] = load_units<Product, from_bfloat16>(job, k, column + c);
      transpose_square(square);
      const int64_t units = (job.k_end - k + per_unit - 1) / per_unit;
#pragma GCC unroll 16
      for (int u = 0; u < lanes; ++u, into += unit_bytes) {
        if (u < units) store(into, square[u]);
      }
    }
    at = at + lanes < job.width ? at + lanes : 0;
  }
}

template <typename Product>
void pack_block(const PackJob& job) {
  if (job.source_bfloat16) job.transposed ? pack_columns<Product, true>(job) : pack_rows<Product, true>(job);
  else job.transposed ? pack_columns<Product, false>(job) : pack_rows<Product, false>(job);
}

}  // namespace
}  // namespace foretoken::cpu
