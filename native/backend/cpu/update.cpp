#include <cmath>

#include "backend/clip_scale.h"
#include "backend/cpu/operations.h"
#include "backend/stochastic_rounding.h"
#include "core/error.h"

namespace foretoken::cpu {

namespace {

// Float64 masters and moments are for comparing with others, not for training: plain loops in float64 will do.

double get(const void* x, DType dtype, std::int64_t i) {
  switch (dtype) {
    case DType::Float64: return static_cast<const double*>(x)[i];
    case DType::Float32: return static_cast<const float*>(x)[i];
    case DType::BFloat16: return static_cast<float>(static_cast<const BFloat16*>(x)[i]);
    case DType::Float16: return static_cast<float>(static_cast<const Float16*>(x)[i]);
  }
  return 0;
}

void put(void* x, DType dtype, std::int64_t i, double value, std::uint32_t word) {
  switch (dtype) {
    case DType::Float64: static_cast<double*>(x)[i] = value; break;
    case DType::Float32: static_cast<float*>(x)[i] = static_cast<float>(value); break;
    case DType::BFloat16: static_cast<BFloat16*>(x)[i] = round_stochastically(static_cast<float>(value), word); break;
    case DType::Float16: static_cast<Float16*>(x)[i] = Float16(static_cast<float>(value)); break;
  }
}

void adamw_in_float64(const AdamWRange& range, DType master, DType moments, const AdamW& options, double scale) {
  const double correction1 = 1 - std::pow(options.beta1, static_cast<double>(options.step));
  const double correction2 = 1 - std::pow(options.beta2, static_cast<double>(options.step));
  for (std::int64_t i = 0; i < range.count; ++i) {
    const double g = range.gradient[i] * scale, old = get(range.master, master, i);
    const double first = options.beta1 * get(range.m, moments, i) + (1 - options.beta1) * g;
    const double second = options.beta2 * get(range.v, moments, i) + (1 - options.beta2) * g * g;
    const double update = first / correction1 / (std::sqrt(second / correction2) + options.epsilon);
    const auto words = rounding_words(options, range.first_element + i);
    put(range.master, master, i, old - options.learning_rate * (update + options.weight_decay * old), words[0]);
    put(range.m, moments, i, first, words[1]);
    put(range.v, moments, i, second, words[2]);
  }
}

}  // namespace

// Pieces of 4096 elements of a row (of the whole, where it is contiguous), added in order.
void CpuBackend::sum_squares(View x, double* sum) {
  constexpr std::int64_t piece = kSquaresPiece;
  const std::int64_t rows = x.contiguous() ? 1 : x.rows, cols = x.contiguous() ? x.elements() : x.cols;
  const std::int64_t pieces = (cols + piece - 1) / piece;
  double* sums = reinterpret_cast<double*>(scratch(rows * pieces, 2));
  team_.parallel_for(rows * pieces, [&](std::int64_t task, int) {
    const std::int64_t begin = task % pieces * piece;
    const View part = x.slice_cols(begin, std::min(piece, cols - begin)).slice_rows(task / pieces, 1);
    if (x.dtype == DType::Float32 || x.dtype == DType::BFloat16) {
      sums[task] = kernels_of(x.dtype).sum_squares(part.data, part.cols);
    } else {
      sums[task] = 0;
      for (std::int64_t i = 0; i < part.cols; ++i) {
        const double value = get(part.data, x.dtype, i);
        sums[task] += value * value;
      }
    }
  });
  *sum = 0;
  for (std::int64_t task = 0; task < rows * pieces; ++task) *sum += sums[task];
}

void CpuBackend::clip_norm(const double* squares, std::int64_t count, double max_norm, double* scale) {
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += squares[i];
  *scale = clip_scale(std::sqrt(sum), max_norm);
}

void CpuBackend::adamw(View master, View m, View v, View gradient, const AdamW& options) {
  invariant(m.dtype == v.dtype, "AdamW's moments have one dtype");
  const double scale = options.gradient_scale ? *options.gradient_scale : 1;
  if (std::isnan(scale)) return;
  const bool in_float64 = master.dtype == DType::Float64 || m.dtype == DType::Float64;
  AdamWRange whole;
  whole.learning_rate = static_cast<float>(options.learning_rate);
  whole.beta1 = static_cast<float>(options.beta1);
  whole.beta2 = static_cast<float>(options.beta2);
  whole.rest1 = static_cast<float>(1 - options.beta1);
  whole.rest2 = static_cast<float>(1 - options.beta2);
  whole.epsilon = static_cast<float>(options.epsilon);
  whole.weight_decay = static_cast<float>(options.weight_decay);
  whole.gradient_scale = static_cast<float>(scale);
  const double step = static_cast<double>(options.step);
  whole.reciprocal_correction1 = static_cast<float>(1 / (1 - std::pow(options.beta1, step)));
  whole.reciprocal_correction2 = static_cast<float>(1 / (1 - std::pow(options.beta2, step)));
  whole.rounding_key = rounding_key(options);
  whole.rounding_stream = options.rounding_stream;
  const auto update = kernels_.adamw[master.dtype == DType::BFloat16][m.dtype == DType::BFloat16];
  const bool contiguous = master.contiguous() && m.contiguous() && v.contiguous() && gradient.contiguous();
  for_elements(master.rows, master.cols, contiguous, [&](std::int64_t row, std::int64_t begin, std::int64_t count) {
    const auto at = [&](const View& x) { return x.slice_rows(row, 1).slice_cols(begin, count).data; };
    AdamWRange range = whole;
    range.master = at(master);
    range.m = at(m);
    range.v = at(v);
    range.gradient = static_cast<const float*>(at(gradient));
    range.first_element = row * master.cols + begin;
    range.count = count;
    if (in_float64) adamw_in_float64(range, master.dtype, m.dtype, options, scale);
    else update(range);
  });
}

void CpuBackend::average(View average, View x, double tau) {
  if (tau == 0) return convert(x, average);
  invariant(average.dtype == x.dtype, "an average has the dtype of what it averages");
  const bool contiguous = average.contiguous() && x.contiguous();
  for_elements(x.rows, x.cols, contiguous, [&](std::int64_t row, std::int64_t begin, std::int64_t count) {
    const View to = average.slice_rows(row, 1).slice_cols(begin, count);
    const View from = x.slice_rows(row, 1).slice_cols(begin, count);
    if (x.dtype == DType::Float64) {
      double* sum = to.as<double>();
      for (std::int64_t i = 0; i < count; ++i) sum[i] += (1 - tau) * (from.as<double>()[i] - sum[i]);
    } else {
      kernels_of(x.dtype).average(to.data, from.data, static_cast<float>(1 - tau), count);
    }
  });
}

}  // namespace foretoken::cpu
