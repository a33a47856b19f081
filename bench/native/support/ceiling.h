#pragma once

// The machine's speed at a large matrix product in this very run: what every share of a ceiling refers to.

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

/// The machine's speed at a product of M 512, K 1024, N 1024 by the faster of our product and oneDNN's.
class Ceiling {
 public:
  Ceiling(DType dtype, int threads)
      : team_(threads), rows_(random_floats(kM * kK, 2)), weights_(random_floats(kK * kN, 1)), narrow_(rows_.size()),
        packed_(cpu::matmul_for(cpu::selected_isa()), dtype, kK, kN), out_(kM * kN) {
    std::transform(rows_.begin(), rows_.end(), narrow_.begin(), [](float x) { return BFloat16(x); });
    cpu::pack(team_, packed_, {weights_.data(), kK, DType::Float32}, true);
    ours_ = [this, dtype] {
      const void* rows = dtype == DType::Float32 ? static_cast<const void*>(rows_.data()) : narrow_.data();
      cpu::multiply(team_, {rows, kK, dtype}, kM, packed_, {}, {out_.data(), kN, DType::Float32});
    };
#ifdef FORETOKEN_HAS_ONEDNN
    prepare_onednn(dtype);
#endif
  }
  Ceiling(const Ceiling&) = delete;
  Ceiling& operator=(const Ceiling&) = delete;

  /// GFLOP/s, the best of some stretches; 0 without oneDNN.
  double ours(int stretches = 5, double stretch = 0.15) const { return rate(ours_, stretches, stretch); }
  double onednn(int stretches = 5, double stretch = 0.15) const { return onednn_ ? rate(onednn_, stretches, stretch) : 0; }

  /// GFLOP/s of the faster one at this moment; ours last, so that what comes next meets no thread of oneDNN still spinning.
  double now() const {
    const double theirs = onednn(2, 0.015);
    return std::max(ours(2, 0.015), theirs);
  }

 private:
  static constexpr std::int64_t kM = 512, kK = 1024, kN = 1024;
  static double rate(const std::function<void()>& product, int stretches, double stretch) {
    return 2e-9 * kM * kK * kN / best_time(product, stretches, stretch);
  }

#ifdef FORETOKEN_HAS_ONEDNN
  void prepare_onednn(DType dtype) {
    using namespace dnnl;
    const auto type = dtype == DType::BFloat16 ? memory::data_type::bf16 : memory::data_type::f32;
    const engine cpu(engine::kind::cpu, 0);
    stream order(cpu);
    const memory::desc a({kM, kK}, type, memory::format_tag::ab), any({kK, kN}, type, memory::format_tag::any),
        c({kM, kN}, memory::data_type::f32, memory::format_tag::ab);
    const matmul::primitive_desc description(matmul::desc(a, any, c), cpu);
    const matmul product(description);
    const auto filled = [&](const memory::desc& to, std::vector<float>& values, const memory::dims& dims) {
      memory source({dims, memory::data_type::f32, memory::format_tag::ab}, cpu, values.data());
      memory target(to, cpu);
      reorder(source, target).execute(order, source, target);
      order.wait();
      return target;
    };
    const memory am = filled(a, rows_, {kM, kK}), bm = filled(description.weights_desc(), weights_, {kK, kN}), cm(c, cpu);
    onednn_ = [order, product, am, bm, cm]() mutable {
      product.execute(order, {{DNNL_ARG_SRC, am}, {DNNL_ARG_WEIGHTS, bm}, {DNNL_ARG_DST, cm}});
      order.wait();
    };
  }
#endif

  mutable ThreadTeam team_;
  std::vector<float> rows_, weights_;
  std::vector<BFloat16> narrow_;
  cpu::PackedMatrix packed_;
  std::vector<float> out_;
  std::function<void()> ours_, onednn_;
};

struct Share { double seconds, of_ceiling; };

/// Medians of `repeats` calls of `flops` FLOPs: their times, and their shares of the ceiling, which is measured before
/// and after each call: on a shared machine it moves from one second to the next.
inline Share median_share(const std::function<void()>& call, int repeats, double flops, const Ceiling& ceiling) {
  call();
  std::vector<double> times, shares;
  for (int r = 0; r < repeats; ++r) {
    const double before = ceiling.now(), begin = seconds();
    call();
    times.push_back(seconds() - begin);
    shares.push_back(2e-9 * flops / times.back() / (before + ceiling.now()));
  }
  const auto median = [&](std::vector<double>& values) {
    std::nth_element(values.begin(), values.begin() + repeats / 2, values.end());
    return values[static_cast<std::size_t>(repeats / 2)];
  };
  return {median(times), median(shares)};
}

}  // namespace foretoken::bench
