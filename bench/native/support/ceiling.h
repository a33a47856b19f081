#pragma once

// The machine's speed for a large matrix product in this very run: what every share of a ceiling refers to.

#include <algorithm>
#include <chrono>
#include <functional>
#include <vector>

#ifdef FORETOKEN_HAS_ONEDNN
#include <oneapi/dnnl/dnnl.hpp>
#endif

#include "backend/cpu/isa.h"
#include "backend/cpu/matmul.h"
#include "core/philox.h"

namespace foretoken::bench {

inline double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Best seconds per call over `repeats` stretches of about `stretch` seconds: on a shared machine the least disturbed.
inline double best_time(const std::function<void()>& call, int repeats = 5, double stretch = 0.15) {
  call();
  double best = 1e30;
  for (int r = 0; r < repeats; ++r) {
    int calls = 0;
    const double begin = seconds();
    double now = begin;
    do { call(); ++calls; now = seconds(); } while (now - begin < stretch);
    best = std::min(best, (now - begin) / calls);
  }
  return best;
}

/// The median of the times of `repeats` calls, after one that warms up: what peers' scripts take.
inline double median_time(const std::function<void()>& call, int repeats) {
  call();
  std::vector<double> times;
  for (int r = 0; r < repeats; ++r) {
    const double begin = seconds();
    call();
    times.push_back(seconds() - begin);
  }
  std::nth_element(times.begin(), times.begin() + repeats / 2, times.end());
  return times[static_cast<std::size_t>(repeats / 2)];
}

inline std::vector<float> random_floats(std::int64_t count, std::uint32_t stream) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = uniform_float(random_words(1, RandomUse::Initialisation, stream, i)[0]) - 0.5f;
  return values;
}

struct Ceiling {
  double ours = 0, onednn = 0;  // GFLOP/s at M 512, K 1024, N 1024
  double best() const { return std::max(ours, onednn); }
};

inline double our_product(ThreadTeam& team, DType dtype) {
  constexpr std::int64_t M = 512, K = 1024, N = 1024;
  const cpu::Matmul& matmul = cpu::matmul_for(cpu::selected_isa());
  const std::vector<float> weights = random_floats(K * N, 1), rows = random_floats(M * K, 2);
  std::vector<BFloat16> narrow(rows.size());
  std::transform(rows.begin(), rows.end(), narrow.begin(), [](float x) { return BFloat16(x); });
  cpu::PackedMatrix packed(matmul, dtype, K, N);
  cpu::pack(team, packed, {weights.data(), K, DType::Float32}, true);
  const cpu::MatrixView a{dtype == DType::Float32 ? static_cast<const void*>(rows.data()) : narrow.data(), K, dtype};
  std::vector<float> out(M * N);
  const double time = best_time([&] { cpu::multiply(team, a, M, packed, {}, {out.data(), N, DType::Float32}); });
  return 2e-9 * M * K * N / time;
}

#ifdef FORETOKEN_HAS_ONEDNN
inline double onednn_product(DType dtype) {
  using namespace dnnl;
  constexpr std::int64_t M = 512, K = 1024, N = 1024;
  const auto type = dtype == DType::BFloat16 ? memory::data_type::bf16 : memory::data_type::f32;
  engine cpu(engine::kind::cpu, 0);
  stream order(cpu);
  const memory::desc a({M, K}, type, memory::format_tag::ab), any({K, N}, type, memory::format_tag::any),
      plain({K, N}, type, memory::format_tag::ab), c({M, N}, memory::data_type::f32, memory::format_tag::ab);
  const matmul::primitive_desc description(matmul::desc(a, any, c), cpu);
  const matmul product(description);
  const std::vector<float> rows = random_floats(M * K, 3), weights = random_floats(K * N, 4);
  const auto filled = [&](const memory::desc& to, const std::vector<float>& values, const memory::dims& dims) {
    memory source({dims, memory::data_type::f32, memory::format_tag::ab}, cpu, const_cast<float*>(values.data()));
    memory target(to, cpu);
    reorder(source, target).execute(order, source, target);
    order.wait();
    return target;
  };
  memory am = filled(a, rows, {M, K}), bm = filled(description.weights_desc(), weights, {K, N}), cm(c, cpu);
  return 2e-9 * M * K * N / best_time([&] {
    product.execute(order, {{DNNL_ARG_SRC, am}, {DNNL_ARG_WEIGHTS, bm}, {DNNL_ARG_DST, cm}});
    order.wait();
  });
}
#endif

inline Ceiling measure_ceiling(DType dtype, int threads) {
  Ceiling ceiling;
  ThreadTeam team(threads);
  ceiling.ours = our_product(team, dtype);
#ifdef FORETOKEN_HAS_ONEDNN
  ceiling.onednn = onednn_product(dtype);
#endif
  return ceiling;
}

}  // namespace foretoken::bench
