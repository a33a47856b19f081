#pragma once

// Between matmul.cpp and the kernel files. The latter are compiled for instruction sets that the machine may lack, so
// nothing here may have an inline function that the linker could pick for the whole program: plain structures only.

#include <cstdint>

#include "backend/cpu/isa.h"

namespace foretoken::cpu {

// A *unit* is what one step of a sum takes from a row or column: a float32, or a pair of bfloat16 that are neighbours
// in k. Either is 4 bytes. A panel is [units][columns]: all of K for `panel_columns` neighbouring columns. Beyond the
// last column there are zeros.

/// Rows of the left operand by panels of the right one.
struct Block {
  // Row r starts at a + r * a_row_bytes; if the rows are packed, at
  // a + r / a_group_rows * a_group_bytes + r % a_group_rows * a_row_bytes.
  const char* a = nullptr;
  std::int64_t a_row_bytes = 0;
  std::int64_t a_unit_bytes = 4;       // from one unit of a row to the next
  std::int64_t a_group_rows = 0;       // 0: not packed
  std::int64_t a_group_bytes = 0;
  bool a_half_unit = false;            // the last unit of each row has only its first half (odd K, unpacked bfloat16)
  const char* b = nullptr;             // panels, one after the other
  std::int64_t units = 0;              // to sum over, the half one included
  std::int64_t panel_units = 0;        // of a panel
  std::int64_t row_begin = 0, row_end = 0;
  std::int64_t column_begin = 0, column_end = 0;   // begins at a panel's first column
  const float* start = nullptr;        // (M, N) where the sums start from; null: from zero
  std::int64_t start_stride = 0;
  const float* bias = nullptr;         // (N) or null
  const float* residual = nullptr;     // (M, N) or null
  std::int64_t residual_stride = 0;
  void* out = nullptr;                 // (M, N)
  std::int64_t out_stride = 0;
  bool out_bfloat16 = false;
};

/// Part of a row-major matrix to be rearranged into panels [units][width].
struct PackJob {
  const void* source = nullptr;
  std::int64_t stride = 0;             // in elements
  bool source_bfloat16 = false;
  bool transposed = false;             // element (k, n) is source[n * stride + k], else source[k * stride + n]
  std::int64_t k_begin = 0, k_end = 0;             // begins at a unit; an odd end is the matrix's
  std::int64_t column_begin = 0, column_end = 0;   // begins at a panel
  std::int64_t width = 0;              // columns of a panel
  std::int64_t panel_bytes = 0;
  char* into = nullptr;                // column_begin's panel
};

/// One dtype's kernels.
struct MatmulKernels {
  int tile_rows;
  int panel_columns;
  int group_rows;
  int share_rows;                      // that are about as much work as loading the panel, when work is shared out
  int step_units;                      // that one instruction sums up; a panel's units are a multiple, zeros beyond K
  void (*multiply)(const Block&);
  void (*pack)(const PackJob&);        // panels of a right operand
  void (*pack_left)(const PackJob&);   // groups of a left one's rows, as columns of the source
};

struct Matmul {
  Isa isa;
  MatmulKernels float32;
  MatmulKernels bfloat16;
};

extern const Matmul kMatmulPortable;
#if defined(__x86_64__)
extern const Matmul kMatmulAvx2;
extern const Matmul kMatmulAvx512;
extern const Matmul kMatmulAvx512Bf16;
extern const Matmul kMatmulAmx;
#endif

}  // namespace foretoken::cpu
