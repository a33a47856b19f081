#pragma once

#include "backend/cuda/device/portable.h"
#include "core/dtype.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

// Numbers in memory and in registers: a kernel computes in float and stores T, float or BFloat16.
namespace foretoken::cuda {

FORETOKEN_DEVICE float widen(float x) { return x; }
FORETOKEN_DEVICE float widen(BFloat16 x) { return float_of_bits(static_cast<std::uint32_t>(x.bits) << 16); }

/// The nearest T, ties to even.
template <typename T> FORETOKEN_DEVICE T narrow(float x);
template <> FORETOKEN_DEVICE float narrow<float>(float x) { return x; }
template <> FORETOKEN_DEVICE BFloat16 narrow<BFloat16>(float x) {
#ifdef __CUDA_ARCH__
  BFloat16 result;
  result.bits = __bfloat16_as_ushort(__float2bfloat16_rn(x));
  return result;
#else
  return BFloat16(x);
#endif
}

// ---- conversions between all dtypes; the 16-bit ones are reached by way of float

FORETOKEN_DEVICE double to_double(double x) { return x; }
FORETOKEN_DEVICE double to_double(float x) { return x; }
FORETOKEN_DEVICE double to_double(BFloat16 x) { return widen(x); }
FORETOKEN_DEVICE double to_double(Float16 x) {
#ifdef __CUDA_ARCH__
  return __half2float(__ushort_as_half(x.bits));
#else
  return static_cast<float>(x);
#endif
}

template <typename T> FORETOKEN_DEVICE T from_double(double x);
template <> FORETOKEN_DEVICE double from_double<double>(double x) { return x; }
template <> FORETOKEN_DEVICE float from_double<float>(double x) { return static_cast<float>(x); }
template <> FORETOKEN_DEVICE BFloat16 from_double<BFloat16>(double x) { return narrow<BFloat16>(static_cast<float>(x)); }
template <> FORETOKEN_DEVICE Float16 from_double<Float16>(double x) {
#ifdef __CUDA_ARCH__
  Float16 result;
  result.bits = __half_as_ushort(__float2half_rn(static_cast<float>(x)));
  return result;
#else
  return Float16(static_cast<float>(x));
#endif
}

}  // namespace foretoken::cuda
