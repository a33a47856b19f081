#pragma once

#include "backend/cuda/attention_tiles.h"
#include "backend/cuda/device/arrivals.h"
#include "backend/cuda/device/wgmma.h"

// What the attention kernels on products of warpgroups have in common (attention_*_sm90.cu).
namespace foretoken::cuda {

/// Heads of up to 64 or up to 128 columns, with zeros behind them, have these kernels: calls body(integral_constant).
/// False where there are none.
template <typename Body>
bool with_operand_columns(int head_dim, const Body& body) {
  if (head_dim <= 64) body(std::integral_constant<int, 64>());
  else if (head_dim <= 128) body(std::integral_constant<int, 128>());
  else return false;
  return true;
}

/// Rows of an operand in shared memory become the rows that source(r) points to, zeros where that is null.
template <int Columns, typename Source>
FORETOKEN_DEVICE void load_operand(BFloat16* operand, int rows, int head_dim, bool aligned, const BFloat16* somewhere,
                                   const Source& source) {
  constexpr int word = kWordElements<BFloat16>, words = Columns / word;
#pragma unroll 1
  for (int i = thread_index(); i < rows * words; i += block_threads()) {
    const int r = i / words, column = i % words * word;
    const BFloat16* row = source(r);
    copy_row_word(operand + operand_element(rows, r, column), row ? row : somewhere, column, head_dim, row != nullptr, aligned);
  }
}

/// Division of packed rows by the group; exact as long as packed rows · group < 2³², which attention_backward.cu sees to.
struct ByGroup {
  std::uint32_t group, inverse;

  FORETOKEN_DEVICE explicit ByGroup(int group)
      : group(static_cast<std::uint32_t>(group)),
        inverse(static_cast<std::uint32_t>(((std::uint64_t{1} << 32) + this->group - 1) / this->group)) {}
  FORETOKEN_DEVICE int quotient(int row) const {
    return group == 1 ? row : static_cast<int>(std::uint64_t{static_cast<std::uint32_t>(row)} * inverse >> 32);
  }
};

/// c (64, 64 or 32) = a · bᵀ over Columns columns; a: 64 rows of an operand of `a_rows`, b: an operand of `b_rows`.
template <int Columns, int Count>
FORETOKEN_DEVICE void start_product(const BFloat16* a, int a_rows, const BFloat16* b, int b_rows, float (&c)[Count]) {
  const Operand left = operand_along(a), right = operand_along(b);
#pragma unroll
  for (int k = 0; k < Columns; k += 16) {
    const int block = k / kBlockColumns * kBlockRowBytes, within = k % kBlockColumns * static_cast<int>(sizeof(BFloat16));
    const Operand x = operand_after(left, block * a_rows + within), y = operand_after(right, block * b_rows + within);
    if (k == 0) multiply_operands<false>(c, x, y);
    else multiply_operands<true>(c, x, y);
  }
}

/// c (64, Columns) = a · b, or added to c; a (64, 16 · Panels) in registers, b: an operand of as many rows.
template <bool Add, int Panels, int Count>
FORETOKEN_DEVICE void start_product(const Factor<BFloat16> (&a)[Panels], const BFloat16* b, float (&c)[Count]) {
  const Operand right = operand_across(b, 16 * Panels);
#pragma unroll
  for (int p = 0; p < Panels; ++p) {
    const Operand y = operand_after(right, p * 16 * kBlockRowBytes);
    if (!Add && p == 0) multiply_factor<false>(c, a[p], y);
    else multiply_factor<true>(c, a[p], y);
  }
}

}  // namespace foretoken::cuda
