#pragma once

#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/kernels/vec.h"

namespace foretoken::cpu {
namespace {

// h = gate · σ(gate) · up
template <typename T>
void swiglu_forward(const void* gate, const void* up, void* h, std::int64_t count) {
  for_vectors(count, [&](std::int64_t i, auto lanes) {
    const Vec g = load((const T*)gate + i, lanes);
    store((T*)h + i, g * sigmoid(g) * load((const T*)up + i, lanes), lanes);
  });
}

// dgate = dh · up · σ · (1 + gate · (1 − σ)), dup = dh · gate · σ
template <typename T>
void swiglu_backward(const void* dh, const void* gate, const void* up, void* dgate, void* dup, std::int64_t count) {
  for_vectors(count, [&](std::int64_t i, auto lanes) {
    const Vec g = load((const T*)gate + i, lanes), upstream = load((const T*)dh + i, lanes), one = broadcast(1.0f);
    const Vec s = sigmoid(g);
    const Vec slope = s * fma(g, one - s, one);
    store((T*)dgate + i, upstream * load((const T*)up + i, lanes) * slope, lanes);
    store((T*)dup + i, upstream * (g * s), lanes);
  });
}

}  // namespace
}  // namespace foretoken::cpu
