#pragma once

#include <cstdint>

#include "backend/cpu/matmul_kernels.h"
#include "core/dtype.h"
#include "core/error.h"

namespace foretoken::cpu {

inline constexpr std::int64_t kUnitBytes = 4;

inline std::int64_t divide_up(std::int64_t value, std::int64_t by) { return (value + by - 1) / by; }
inline std::int64_t round_up(std::int64_t value, std::int64_t grain) { return divide_up(value, grain) * grain; }

/// The units that k elements of a row or column make.
inline std::int64_t units_of(DType dtype, std::int64_t k) { return dtype == DType::BFloat16 ? divide_up(k, 2) : k; }

inline const MatmulKernels& kernels_for(const Matmul& matmul, DType dtype) {
  if (dtype == DType::Float32) return matmul.float32;
  invariant(dtype == DType::BFloat16, "matrix products are of float32 or bfloat16");
  return matmul.bfloat16;
}

/// The units of a panel, or of a packed group of rows, that holds k elements of each.
inline std::int64_t panel_units(const MatmulKernels& kernels, DType dtype, std::int64_t k) {
  return round_up(units_of(dtype, k), kernels.step_units);
}

}  // namespace foretoken::cpu
