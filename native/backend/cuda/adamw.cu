#include <cmath>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/elementwise.h"
#include "backend/cuda/philox.h"
#include "backend/stochastic_rounding.h"

namespace foretoken::cuda {

namespace {

/// AdamW's numbers in R, the type that the update is computed in.
template <typename R>
struct Update {
  R learning_rate, beta1, beta2, rest1, rest2, epsilon, weight_decay;
  R reciprocal_correction1, reciprocal_correction2;
  std::uint64_t rounding_key;
  std::uint32_t rounding_stream;
  const double* gradient_scale;
};

template <typename R>
FORETOKEN_DEVICE void put(double* x, R value, std::uint32_t) { *x = static_cast<double>(value); }
template <typename R>
FORETOKEN_DEVICE void put(float* x, R value, std::uint32_t) { *x = static_cast<float>(value); }
/// One of the two neighbours, the nearer the likelier; what is not finite as ever. See backend/stochastic_rounding.h.
template <typename R>
FORETOKEN_DEVICE void put(BFloat16* x, R wide, std::uint32_t word) {
  const float value = static_cast<float>(wide);
  const std::uint32_t bits = bits_of_float(value);
  if ((bits & 0x7f800000u) == 0x7f800000u) *x = narrow<BFloat16>(value);
  else x->bits = static_cast<std::uint16_t>((bits + (word & 0xffffu)) >> 16);
}

FORETOKEN_DEVICE float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
FORETOKEN_DEVICE double multiply_add(double a, double b, double c) { return fma(a, b, c); }
FORETOKEN_DEVICE float square_root(float x) { return sqrtf(x); }
FORETOKEN_DEVICE double square_root(double x) { return sqrt(x); }

// g = gradient · gradient_scale, m = β₁ m + (1 − β₁) g, v = β₂ v + (1 − β₂) g²,
// master -= lr · (m / (1 − β₁ᵗ) / (sqrt(v / (1 − β₂ᵗ)) + ε) + weight_decay · master). Moves 28 bytes an element in float32.
template <typename R, typename Master, typename Moment>
FORETOKEN_KERNEL void adamw_kernel(Matrix<Master> master, Matrix<Moment> m, Matrix<Moment> v, Matrix<const float> gradient,
                                   Update<R> update, std::int64_t cols, Chunks chunks) {
  const double scale_given = update.gradient_scale ? *update.gradient_scale : 1;
  if (scale_given != scale_given) return;  // NaN: the gradients are not finite, and nothing may change
  const R scale = static_cast<R>(scale_given);
  constexpr bool by_chance = sizeof(Master) == 2 || sizeof(Moment) == 2;
  for_chunks(chunks, [&](std::int64_t row, std::int64_t c, std::int64_t count) {
    const auto one = [&](Master* w, Moment* first, Moment* second, R g, R old, R m_old, R v_old, std::int64_t element) {
      g = g * scale;
      const R m_new = multiply_add(update.beta1, m_old, g * update.rest1);
      const R v_new = multiply_add(update.beta2, v_old, g * g * update.rest2);
      const R root = square_root(v_new * update.reciprocal_correction2);
      const R direction = m_new * update.reciprocal_correction1 / (root + update.epsilon);
      const R next = multiply_add(-update.learning_rate, multiply_add(update.weight_decay, old, direction), old);
      RandomWords words{};
      if (by_chance)
        words = random_words(update.rounding_key, static_cast<std::uint32_t>(RandomUse::StochasticRounding), update.rounding_stream,
                             static_cast<std::uint64_t>(element));
      put(w, next, words.x[0]);
      put(first, m_new, words.x[1]);
      put(second, v_new, words.x[2]);
    };
    Master* w = master.row(row) + c;
    Moment* first = m.row(row) + c;
    Moment* second = v.row(row) + c;
    const std::int64_t element = row * cols + c;
    if constexpr (sizeof(R) == 8) {
      for (int i = 0; i < count; ++i)
        one(w + i, first + i, second + i, gradient.row(row)[c + i], to_double(w[i]), to_double(first[i]), to_double(second[i]), element + i);
    } else {
      float g[kChunk], old[kChunk], m_old[kChunk], v_old[kChunk];
      load_chunk(gradient.row(row) + c, count, gradient.aligned, g);
      load_chunk(w, count, master.aligned, old);
      load_chunk(first, count, m.aligned, m_old);
      load_chunk(second, count, v.aligned, v_old);
      alignas(16) Master w_new[kChunk];
      alignas(16) Moment m_new[kChunk], v_new[kChunk];
#pragma unroll
      for (int i = 0; i < kChunk; ++i) one(w_new + i, m_new + i, v_new + i, g[i], old[i], m_old[i], v_old[i], element + i);
      // Exact: these values are what Master and Moment hold.
      const auto store = [&](auto* target, const auto* values, bool aligned) {
        float wide[kChunk];
#pragma unroll
        for (int i = 0; i < kChunk; ++i) wide[i] = widen(values[i]);
        store_chunk(target, count, aligned, wide);
      };
      store(w, w_new, master.aligned);
      store(first, m_new, m.aligned);
      store(second, v_new, v.aligned);
    }
  });
}

template <typename R>
Update<R> update_of(const AdamW& options) {
  const double step = static_cast<double>(options.step);
  Update<R> update;
  update.learning_rate = static_cast<R>(options.learning_rate);
  update.beta1 = static_cast<R>(options.beta1);
  update.beta2 = static_cast<R>(options.beta2);
  update.rest1 = static_cast<R>(1 - options.beta1);
  update.rest2 = static_cast<R>(1 - options.beta2);
  update.epsilon = static_cast<R>(options.epsilon);
  update.weight_decay = static_cast<R>(options.weight_decay);
  update.gradient_scale = options.gradient_scale;
  update.reciprocal_correction1 = static_cast<R>(1 / (1 - std::pow(options.beta1, step)));
  update.reciprocal_correction2 = static_cast<R>(1 / (1 - std::pow(options.beta2, step)));
  update.rounding_key = rounding_key(options);
  update.rounding_stream = options.rounding_stream;
  return update;
}

template <typename Body>
void with_state_type(DType dtype, const Body& body) {
  if (dtype == DType::Float64) body(double());
  else with_type(dtype, body);
}

}  // namespace

void CudaBackend::adamw(View master, View m, View v, View gradient, const AdamW& options) {
  invariant(m.dtype == v.dtype, "AdamW's moments have one dtype");
  const Chunks chunks = Chunks::of(master.rows, master.cols,
                                   master.contiguous() && m.contiguous() && v.contiguous() && gradient.contiguous());
  with_state_type(master.dtype, [&](auto w) {
    with_state_type(m.dtype, [&](auto n) {
      using Master = decltype(w);
      using Moment = decltype(n);
      using R = std::conditional_t<std::is_same_v<Master, double> || std::is_same_v<Moment, double>, double, float>;
      FORETOKEN_LAUNCH(*device_, (adamw_kernel<R, Master, Moment>), chunks.grid(), matrix<Master>(master), matrix<Moment>(m),
                       matrix<Moment>(v), matrix<const float>(gradient), update_of<R>(options), master.cols, chunks);
    });
  });
}

}  // namespace foretoken::cuda
