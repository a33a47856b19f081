#pragma once

// From sums to output: a block's epilogue, for tiles that have left the registers.

#include "backend/cpu/amx_tile.h"
#include "backend/cpu/matmul_vectors_avx512.h"

namespace foretoken::cpu {
namespace {

/// Some rows of sums, and where what belongs to them lies.
struct SumRows {
  const float* sums;
  int64_t sums_stride;
  const float* bias;       // or null
  const float* residual;   // or null
  int64_t residual_stride;
  void* out;
  int64_t out_stride;
  int64_t rows, columns;
};

FORETOKEN_INLINE __m512 finished(const SumRows& at, int64_t row, int64_t column, __mmask16 mask) {
  __m512 sum = _mm512_load_ps(at.sums + row * at.sums_stride + column);
  if (at.bias != nullptr) sum += _mm512_maskz_loadu_ps(mask, at.bias + column);
  if (at.residual != nullptr) sum += _mm512_maskz_loadu_ps(mask, at.residual + row * at.residual_stride + column);
  return sum;
}

template <bool bfloat16>
FORETOKEN_INLINE void finish_rows(SumRows at) {
  constexpr int lanes = kAmxColumns;
  constexpr __mmask16 all = 0xffff;
  for (int64_t row = 0; row < at.rows; ++row) {
    int64_t column = 0;
    for (; column + 2 * lanes <= at.columns; column += 2 * lanes) {
      const __m512 first = finished(at, row, column, all);
      const __m512 second = finished(at, row, column + lanes, all);
      const int64_t to = row * at.out_stride + column;
      if constexpr (bfloat16) {
        _mm512_storeu_si512(static_cast<uint16_t*>(at.out) + to,
                            reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second, first)));
      } else {
        _mm512_storeu_ps(static_cast<float*>(at.out) + to, first);
        _mm512_storeu_ps(static_cast<float*>(at.out) + to + lanes, second);
      }
    }
    for (; column < at.columns; column += lanes) {
      const int64_t left = at.columns - column;
      const __mmask16 mask = left >= lanes ? all : static_cast<__mmask16>((1u << left) - 1);
      const __m512 sum = finished(at, row, column, mask);
      const int64_t to = row * at.out_stride + column;
      if constexpr (bfloat16) {
        _mm256_mask_storeu_epi16(static_cast<uint16_t*>(at.out) + to, mask,
                                 reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(sum)));
      } else {
        _mm512_mask_storeu_ps(static_cast<float*>(at.out) + to, mask, sum);
      }
    }
  }
}

/// Sums of a tile that wait for their epilogue, which goes on some rows at a time while the next tile is computed: the
/// registers' instructions leave the others room. One tile being computed and one waiting have memory.
class Waiting {
 public:
  explicit Waiting(const Block& block) : block_(block) {}
  ~Waiting() { finish(rows()); }
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;

  /// Where the next tile's sums go.
  float* room() { return sums_[1 - current_]; }

  /// What is in `room` waits now; the last ones have to be done.
  void add(int64_t row, int rows, int64_t column, int64_t columns, int width) {
    current_ = 1 - current_;
    const int64_t out_at = row * block_.out_stride + column;
    at_ = {sums_[current_], width, moved(block_.bias, column),
           moved(block_.residual, row * block_.residual_stride + column), block_.residual_stride,
           static_cast<char*>(block_.out) + out_at * (block_.out_bfloat16 ? 2 : 4), block_.out_stride, rows, columns};
  }
  int rows() const { return static_cast<int>(at_.rows); }

  FORETOKEN_INLINE void finish(int most) {
    const int64_t rows = at_.rows < most ? at_.rows : most;
    if (rows <= 0) return;
    SumRows some = at_;
    some.rows = rows;
    at_.rows -= rows;
    at_.sums += rows * at_.sums_stride;
    at_.residual = moved(at_.residual, rows * at_.residual_stride);
    at_.out = static_cast<char*>(at_.out) + rows * at_.out_stride * (block_.out_bfloat16 ? 2 : 4);
    block_.out_bfloat16 ? finish_rows<true>(some) : finish_rows<false>(some);
  }

 private:
  const Block& block_;
  alignas(64) float sums_[2][4 * kAmxRows * kAmxColumns];
  int current_ = 0;
  SumRows at_ = {};
};

}  // namespace
}  // namespace foretoken::cpu
