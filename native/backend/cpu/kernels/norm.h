#pragma once

#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/kernels/vec.h"

namespace foretoken::cpu {
namespace {

/// 1 / sqrt(mean(x²) + ε)
template <typename T>
FORETOKEN_INLINE float reciprocal_rms(const T* x, std::int64_t cols, float epsilon) {
  const float squares = reduce(cols, [&](Vec total, std::int64_t i, auto lanes) {
    const Vec value = load(x + i, lanes);
    return fma(value, value, total);
  });
  return 1.0f / __builtin_sqrtf(squares / (float)cols + epsilon);
}

// y = x · rstd · w
template <typename T>
void norm_forward(const NormRows& job) {
  for (std::int64_t r = 0; r < job.rows; ++r) {
    const float* x = job.x + r * job.x_stride;
    T* y = (T*)job.y + r * job.y_stride;
    const float rstd = reciprocal_rms(x, job.cols, job.epsilon);
    if (job.rstd) job.rstd[r] = rstd;
    const Vec scale = broadcast(rstd);
    for_vectors(job.cols, [&](std::int64_t i, auto lanes) {
      store(y + i, load(x + i, lanes) * scale * load(job.weight + i, lanes), lanes);
    });
  }
}

// With g = dy · w: dx += rstd · g − x · rstd³ · mean(g · x), dweight = Σ_rows dy · x · rstd, in the order of the rows
template <typename T>
void norm_backward(const NormRows& job) {
  for_vectors(job.cols, [&](std::int64_t i, auto lanes) { store(job.dweight + i, zero(), lanes); });
  for (std::int64_t r = 0; r < job.rows; ++r) {
    const float* x = job.x + r * job.x_stride;
    const float* dy = job.dy + r * job.dy_stride;
    float* dx = job.dx + r * job.dx_stride;
    T* dx_t = job.dx_t ? (T*)job.dx_t + r * job.dx_t_stride : nullptr;
    const float rstd = job.rstd[r];
    const float projection = reduce(job.cols, [&](Vec total, std::int64_t i, auto lanes) {
      return fma(load(dy + i, lanes) * load(job.weight + i, lanes), load(x + i, lanes), total);
    });
    const Vec scale = broadcast(rstd);
    const Vec back = broadcast(-(rstd * rstd * rstd) * (projection / (float)job.cols));
    for_vectors(job.cols, [&](std::int64_t i, auto lanes) {
      const Vec value = load(x + i, lanes), upstream = load(dy + i, lanes);
      store(job.dweight + i, fma(upstream * scale, value, load(job.dweight + i, lanes)), lanes);
      const Vec direct = fma(upstream * load(job.weight + i, lanes), scale, load(dx + i, lanes));
      const Vec sum = fma(value, back, direct);
      store(dx + i, sum, lanes);
      if (dx_t) store(dx_t + i, sum, lanes);
    });
  }
}

}  // namespace
}  // namespace foretoken::cpu
