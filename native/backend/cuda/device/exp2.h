#pragma once

#include "backend/cuda/device/portable.h"

namespace foretoken::cuda {

/// 2^x in one instruction; on the GPU within 2 ulp, and results below the least normal number are zero.
FORETOKEN_DEVICE float exp2_fast(float x) {
#ifdef __CUDA_ARCH__
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return exp2f(x);
#endif
}

inline constexpr float kLog2E = 1.4426950408889634f;

}  // namespace foretoken::cuda
