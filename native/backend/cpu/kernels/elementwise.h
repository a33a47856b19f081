#pragma once

#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/kernels/vec.h"

namespace foretoken::cpu {
namespace {

template <typename T>
void widen(const void* x, float* y, std::int64_t count) {
  for_vectors(count, [&](std::int64_t i, auto lanes) { store(y + i, load((const T*)x + i, lanes), lanes); });
}

template <typename T>
void narrow(const float* x, void* y, std::int64_t count) {
  T* to = (T*)y;
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store_nearest(to + i, load(x + i));
  if (i == count) return;
  T rest[kLanes];
  store_nearest(rest, load(x + i, Part{(int)(count - i)}));
  for (int l = 0; i < count; ++i, ++l) to[i] = rest[l];
}

template <typename T>
void round(const float* x, float* y, std::int64_t count) {
  for_vectors(count, [&](std::int64_t i, auto lanes) {
    T rounded[kLanes];
    store_nearest(rounded, load(x + i, lanes));
    store(y + i, load(rounded), lanes);
  });
}

void add(const float* x, float* y, std::int64_t count) {
  for_vectors(count, [&](std::int64_t i, auto lanes) { store(y + i, load(y + i, lanes) + load(x + i, lanes), lanes); });
}

template <typename T>
void average(void* average, const void* x, float share, std::int64_t count) {
  for_vectors(count, [&](std::int64_t i, auto lanes) {
    T* target = (T*)average + i;
    const Vec old = load(target, lanes);
    store(target, fma(broadcast(share), load((const T*)x + i, lanes) - old, old), lanes);
  });
}

void exponential(const float* x, float* y, std::int64_t count) {
  for_vectors(count, [&](std::int64_t i, auto lanes) { store(y + i, exp(load(x + i, lanes)), lanes); });
}

// Lane by lane in float64, sixteen sums that take turns, added up in order.
template <typename T>
double sum_squares(const void* x, std::int64_t count) {
  const T* values = (const T*)x;
  double sums[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int l = 0; l < kLanes; ++l) {
      const double value = to_float(values[i + l]);
      sums[l] += value * value;
    }
  for (int l = 0; i < count; ++i, ++l) {
    const double value = to_float(values[i]);
    sums[l] += value * value;
  }
  double total = 0;
  for (int l = 0; l < kLanes; ++l) total += sums[l];
  return total;
}

// Each column in the order of the rows.
template <typename T>
void column_sums(const void* x, std::int64_t stride, std::int64_t rows, std::int64_t cols, float* y) {
  for_vectors(cols, [&](std::int64_t c, auto lanes) {
    const T* column = (const T*)x + c;
    Vec total = zero();
    for (std::int64_t r = 0; r < rows; ++r) total = total + load(column + r * stride, lanes);
    store(y + c, load(y + c, lanes) + total, lanes);
  });
}

}  // namespace
}  // namespace foretoken::cpu
