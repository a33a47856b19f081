// The matrix product by shape and rows: GFLOP/s and weight GB/s, as a share of the multipliers' peak measured here and,
// where oneDNN is installed, as a ratio to it (weights in its own packed layout, primitives made beforehand). A ratio is
// the median over pairs of runs that take turns, so that a change of clock or a busy neighbour meets both.
//
//   matmul [--rows 1,8,512] [--shape 384x1024] [--dtype bfloat16] [--threads 2] [--pairs 7] [--gradient | --product]

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#ifdef FORETOKEN_HAS_ONEDNN
#include <unordered_map>

#include <oneapi/dnnl/dnnl.hpp>
#endif

#include "backend/cpu/matmul.h"
#include "core/philox.h"

using namespace foretoken;
using namespace foretoken::cpu;

namespace {

struct Shape { std::int64_t k, n; };

constexpr Shape kShapes[] = {{384, 384}, {384, 1024}, {1024, 384}, {384, 8192}, {576, 1536}, {1536, 576}, {576, 49152},
                             {896, 4864}, {4864, 896}, {896, 151936}, {2048, 8192}};

struct Options {
  std::vector<std::int64_t> rows{1, 2, 4, 8, 16, 32, 512};
  std::vector<Shape> shapes{std::begin(kShapes), std::end(kShapes)};
  std::vector<DType> dtypes{DType::Float32, DType::BFloat16};
  int threads = 0, pairs = 7;
  bool product = true, gradient = true;
};

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Seconds per call. The first calls are not timed: the other library's idle threads may still be spinning.
double time_of(const std::function<void()>& call, double warm_up, double timed) {
  double begin = seconds();
  do call(); while (seconds() - begin < warm_up);
  int calls = 0;
  double now;
  begin = seconds();
  do { call(); ++calls; now = seconds(); } while (now - begin < timed);
  return (now - begin) / calls;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct Timing { double ours, other, ratio; };

Timing compare(const std::function<void()>& ours, const std::function<void()>& other, int pairs) {
  std::vector<double> mine, theirs, ratios;
  for (int pair = 0; pair < pairs; ++pair) {
    mine.push_back(time_of(ours, 0.002, 0.006));
    if (!other) continue;
    theirs.push_back(time_of(other, 0.002, 0.006));
    ratios.push_back(theirs.back() / mine.back());
    std::this_thread::sleep_for(std::chrono::milliseconds(8));
  }
  return {median(mine), other ? median(theirs) : 0, other ? median(ratios) : 0};
}

/// Random numbers in [-1, 1): zeros would be timed faster than life.
AlignedMemory random_memory(ThreadTeam& team, DType dtype, std::int64_t count, std::uint32_t stream) {
  AlignedMemory memory(static_cast<std::size_t>(count) * size_of(dtype));
  constexpr std::int64_t kPart = 1 << 16;
  team.parallel_for((count + kPart - 1) / kPart, [&](std::int64_t part, int) {
    std::uint32_t state = random_words(1, RandomUse::Initialisation, stream, static_cast<std::uint64_t>(part))[0] | 1;
    for (std::int64_t i = part * kPart; i < std::min(count, (part + 1) * kPart); ++i) {
      state = state * 1664525u + 1013904223u;
      const float value = 2 * uniform_float(state) - 1;
      if (dtype == DType::Float32) reinterpret_cast<float*>(memory.data())[i] = value;
      else reinterpret_cast<BFloat16*>(memory.data())[i] = BFloat16(value);
    }
  });
  return memory;
}

// ---- The multipliers' peak -----------------------------------------------------------------------------------------

#if defined(__x86_64__)
constexpr int kPeakSteps = 20000, kPeakSums = 16;

__attribute__((target("avx512f"))) void peak_avx512() {
  __m512 sums[kPeakSums], a = _mm512_set1_ps(1.0f), b = _mm512_set1_ps(0.5f);
  for (auto& sum : sums) sum = _mm512_setzero_ps();
  for (int step = 0; step < kPeakSteps; ++step) {
    asm volatile("" : "+v"(a), "+v"(b));
#pragma GCC unroll 16
    for (auto& sum : sums) sum = _mm512_fmadd_ps(a, b, sum);
  }
  for (auto& sum : sums) asm volatile("" :: "v"(sum));
}

__attribute__((target("avx512f,avx512bf16"))) void peak_avx512_bf16() {
  __m512 sums[kPeakSums];
  __m512i a = _mm512_set1_epi32(0x3f803f80), b = _mm512_set1_epi32(0x3f003f00);
  for (auto& sum : sums) sum = _mm512_setzero_ps();
  for (int step = 0; step < kPeakSteps; ++step) {
    asm volatile("" : "+v"(a), "+v"(b));
#pragma GCC unroll 16
    for (auto& sum : sums) sum = _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
  for (auto& sum : sums) asm volatile("" :: "v"(sum));
}

__attribute__((target("amx-tile,amx-bf16"))) void peak_amx() {
  alignas(64) unsigned char config[64] = {1};
  for (int tile = 0; tile < 8; ++tile) config[16 + 2 * tile] = 64, config[48 + tile] = 16;
  asm volatile("ldtilecfg %0" :: "m"(config));
  for (int step = 0; step < kPeakSteps; ++step) {
    asm volatile("tdpbf16ps %tmm6, %tmm4, %tmm0\n\ttdpbf16ps %tmm7, %tmm4, %tmm1\n\t"
                 "tdpbf16ps %tmm6, %tmm5, %tmm2\n\ttdpbf16ps %tmm7, %tmm5, %tmm3");
  }
  asm volatile("tilerelease");
}

__attribute__((target("avx2,fma"))) void peak_avx2() {
  __m256 sums[12], a = _mm256_set1_ps(1.0f), b = _mm256_set1_ps(0.5f);
  for (auto& sum : sums) sum = _mm256_setzero_ps();
  for (int step = 0; step < kPeakSteps; ++step) {
    asm volatile("" : "+v"(a), "+v"(b));
#pragma GCC unroll 16
    for (auto& sum : sums) sum = _mm256_fmadd_ps(a, b, sum);
  }
  for (auto& sum : sums) asm volatile("" :: "v"(sum));
}
#endif

/// FLOP/s of all threads doing nothing but multiply and add in registers; 0 where we have no such loop.
double measure_peak([[maybe_unused]] ThreadTeam& team, [[maybe_unused]] Isa isa, [[maybe_unused]] DType dtype) {
#if defined(__x86_64__)
  void (*loop)() = nullptr;
  double flops = 0;
  if (isa == Isa::Avx2) loop = peak_avx2, flops = 12.0 * 16 * kPeakSteps;
  if (isa >= Isa::Avx512) loop = peak_avx512, flops = kPeakSums * 32.0 * kPeakSteps;
  if (isa == Isa::Avx512Bf16 && dtype == DType::BFloat16) loop = peak_avx512_bf16, flops *= 2;
  if (isa == Isa::Amx && dtype == DType::BFloat16) loop = peak_amx, flops = 4 * 16384.0 * kPeakSteps;
  if (loop == nullptr) return 0;
  double best = 1e9;
  for (int i = 0; i < 5; ++i) {
    const auto on_all = [&] { team.parallel_for(team.size(), [&](std::int64_t, int) { loop(); }); };
    best = std::min(best, time_of(on_all, 0.005, 0.01));
  }
  return flops * team.size() / best;
#else
  return 0;
#endif
}

// ---- oneDNN --------------------------------------------------------------------------------------------------------

#ifdef FORETOKEN_HAS_ONEDNN
using Tag = dnnl::memory::format_tag;

dnnl::memory::data_type dnnl_type(DType dtype) {
  return dtype == DType::Float32 ? dnnl::memory::data_type::f32 : dnnl::memory::data_type::bf16;
}

class OneDnn {
 public:
  /// The weights (N, K) of y = x Wᵀ, in the layout that oneDNN prefers for so many rows.
  std::function<void()> product(DType dtype, std::int64_t m, std::int64_t k, std::int64_t n, std::byte* a,
                                std::byte* weights, std::byte* out) {
    const auto type = dnnl_type(dtype);
    const dnnl::memory::desc a_desc({m, k}, type, Tag::ab), out_desc({m, n}, type, Tag::ab);
    const dnnl::memory::desc any({k, n}, type, Tag::any);
    const dnnl::matmul::primitive_desc desc(dnnl::matmul::desc(a_desc, any, out_desc), engine_);
    dnnl::memory plain({{k, n}, type, Tag::ba}, engine_, weights);
    dnnl::memory packed(desc.weights_desc(), engine_);
    dnnl::reorder(plain, packed).execute(stream_, plain, packed);
    stream_.wait();
    return runner(dnnl::matmul(desc), dnnl::memory(a_desc, engine_, a), packed, dnnl::memory(out_desc, engine_, out));
  }

  /// dyᵀ · x, not added to what was there (which favours oneDNN).
  std::function<void()> gradient(DType dtype, std::int64_t tokens, std::int64_t outputs, std::int64_t inputs,
                                 std::byte* dy, std::byte* x, float* dw) {
    const auto type = dnnl_type(dtype);
    const dnnl::memory::desc dy_desc({outputs, tokens}, type, Tag::ba), x_desc({tokens, inputs}, type, Tag::ab);
    const dnnl::memory::desc dw_desc({outputs, inputs}, dnnl::memory::data_type::f32, Tag::ab);
    const dnnl::matmul::primitive_desc desc(dnnl::matmul::desc(dy_desc, x_desc, dw_desc), engine_);
    return runner(dnnl::matmul(desc), dnnl::memory(dy_desc, engine_, dy), dnnl::memory(x_desc, engine_, x),
                  dnnl::memory(dw_desc, engine_, dw));
  }

 private:
  std::function<void()> runner(dnnl::matmul primitive, dnnl::memory a, dnnl::memory b, dnnl::memory out) {
    std::unordered_map<int, dnnl::memory> arguments{{DNNL_ARG_SRC, a}, {DNNL_ARG_WEIGHTS, b}, {DNNL_ARG_DST, out}};
    return [this, primitive, arguments] { primitive.execute(stream_, arguments); stream_.wait(); };
  }
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
};
#endif

// ---- The table -----------------------------------------------------------------------------------------------------

void print_row(const char* what, DType dtype, Shape shape, std::int64_t rows, const Timing& timing, double peak) {
  const double flops = 2.0 * static_cast<double>(rows * shape.k * shape.n);
  const double weight_bytes = static_cast<double>(shape.k * shape.n) * static_cast<double>(size_of(dtype));
  std::printf("%-8s %-8s %6lld x %-6lld %5lld %9.1f us %8.1f GFLOP/s %7.1f GB/s", what, name_of(dtype),
              static_cast<long long>(shape.k), static_cast<long long>(shape.n), static_cast<long long>(rows),
              timing.ours * 1e6, flops / timing.ours * 1e-9, weight_bytes / timing.ours * 1e-9);
  if (peak > 0) std::printf("  %5.1f %% of peak", 100 * flops / timing.ours / peak);
  if (timing.other > 0) std::printf("  oneDNN %8.1f GFLOP/s  ratio %.2f", flops / timing.other * 1e-9, timing.ratio);
  std::printf("\n");
  std::fflush(stdout);
}

void run(const Options& options) {
  ThreadTeam team(options.threads);
  const Isa isa = selected_isa();
  const Matmul& matmul = matmul_for(isa);
  std::printf("instruction set %s, %d threads\n", name_of(isa), team.size());
#ifdef FORETOKEN_HAS_ONEDNN
  OneDnn onednn;
#endif
  for (const DType dtype : options.dtypes) {
    const double peak = measure_peak(team, isa, dtype);
    if (peak > 0) std::printf("%s peak %.0f GFLOP/s\n", name_of(dtype), peak * 1e-9);
    for (const Shape shape : options.shapes) {
      const auto [k, n] = shape;
      const AlignedMemory weights = random_memory(team, dtype, k * n, 1);
      if (options.product) {
        PackedMatrix packed(matmul, dtype, k, n);
        const double packing = time_of([&] { pack(team, packed, {weights.data(), k, dtype}, true); }, 0, 0.005);
        std::printf("pack     %-8s %6lld x %-6lld       %9.1f us %7.1f GB/s read\n", name_of(dtype),
                    static_cast<long long>(k), static_cast<long long>(n), packing * 1e6,
                    static_cast<double>(weights.bytes()) / packing * 1e-9);
        for (const std::int64_t m : options.rows) {
          const AlignedMemory a = random_memory(team, dtype, m * k, 2);
          const AlignedMemory out(static_cast<std::size_t>(m * n) * size_of(dtype));
          const auto ours = [&] { multiply(team, {a.data(), k, dtype}, m, packed, {}, {out.data(), n, dtype}); };
          std::function<void()> other;
#ifdef FORETOKEN_HAS_ONEDNN
          other = onednn.product(dtype, m, k, n, a.data(), weights.data(), out.data());
#endif
          print_row("product", dtype, shape, m, compare(ours, other, options.pairs), peak);
        }
      }
      // A gradient (O, I) = (n, k) over chunks of tokens; the largest heads are cut by vocabulary anyway.
      if (options.gradient && n <= 8192) {
        for (const std::int64_t tokens : {256, 1024}) {
          GradientWorkspace workspace;
          const AlignedMemory dy = random_memory(team, dtype, tokens * n, 3);
          const AlignedMemory x = random_memory(team, dtype, tokens * k, 4);
          const AlignedMemory dw = random_memory(team, DType::Float32, n * k, 5);
          float* const gradient = reinterpret_cast<float*>(dw.data());
          const auto ours = [&] {
            multiply_gradient(team, matmul, workspace, {dy.data(), n, dtype}, {x.data(), k, dtype}, tokens, n, k,
                              gradient, k);
          };
          std::function<void()> other;
#ifdef FORETOKEN_HAS_ONEDNN
          other = onednn.gradient(dtype, tokens, n, k, dy.data(), x.data(), gradient);
#endif
          print_row("gradient", dtype, shape, tokens, compare(ours, other, options.pairs), peak);
        }
      }
    }
  }
}

}  // namespace

int main(int count, char** arguments) {
  Options options;
  for (int i = 1; i < count; ++i) {
    const std::string name = arguments[i];
    if (name == "--gradient") { options.product = false; continue; }
    if (name == "--product") { options.gradient = false; continue; }
    if (i + 1 == count) { std::fprintf(stderr, "%s needs a value\n", name.c_str()); return 2; }
    char* value = arguments[++i];
    if (name == "--rows") {
      options.rows.clear();
      for (char* at = value; *at; at += *at == ',') options.rows.push_back(std::strtoll(at, &at, 10));
    } else if (name == "--shape") {
      char* at = value;
      const std::int64_t k = std::strtoll(at, &at, 10);
      options.shapes = {{k, *at == 'x' ? std::strtoll(at + 1, nullptr, 10) : k}};
    } else if (name == "--dtype") {
      options.dtypes = {std::string(value) == "float32" ? DType::Float32 : DType::BFloat16};
    } else if (name == "--threads") {
      options.threads = std::atoi(value);
    } else if (name == "--pairs") {
      options.pairs = std::atoi(value);
    } else {
      std::fprintf(stderr, "unknown option %s\n", name.c_str());
      return 2;
    }
  }
  try {
    run(options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
