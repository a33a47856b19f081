// Every operation of the CUDA backend on shapes of published models: memory-bound ones as a share of a copy measured in
// the same run, products and attention as TFLOP/s and as a share of an 8192³ product. Random numbers throughout: a GPU is
// faster on zeros. Each result is a line of JSON; scripts/gpu-check.sh collects them.
//
//   gpu_operations --library build/Release/libforetoken_cuda.so [--device cuda] [--part memory|product|attention] [--scale 1]
//
// --scale 64 does a 64th of the work, to try the program itself on a CPU (--device cpu).

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <list>
#include <numeric>
#include <string>
#include <vector>

#include "core/error.h"
#include "support/ceiling.h"
#include "support/device.h"

using namespace foretoken;
using namespace foretoken::bench;

namespace {

constexpr DType A = DType::Float32;

class Bench {
 public:
  /// `warpgroups`, if any, is the same device with FORETOKEN_CUDA_ATTENTION=wgmma, for comparisons of bits.
  Bench(Backend& backend, Backend* warpgroups, int scale)
      : b_(backend), warpgroups_(warpgroups), T_(backend.activation_dtype()), scale_(scale) {
    const std::vector<float> values = random_floats(scaled(1 << 24), 1);
    noise_ = Buffer(b_, values.size() * sizeof(float));
    b_.upload(noise_.data(), values.data(), values.size() * sizeof(float));
    noise_count_ = static_cast<std::int64_t>(values.size());
  }

  void copy();
  void memory();
  void ceiling();
  void products();
  void attention();

 private:
  std::int64_t scaled(std::int64_t full) const { return std::max<std::int64_t>(64, full / scale_ / 64 * 64); }

  View empty(DType dtype, std::int64_t rows, std::int64_t cols) {
    buffers_.emplace_back(b_, static_cast<std::size_t>(rows * cols) * size_of(dtype));
    return {buffers_.back().data(), dtype, rows, cols};
  }
  /// Random numbers in [-0.5, 0.5), the same few million over and over.
  View random(DType dtype, std::int64_t rows, std::int64_t cols) {
    const View x = empty(dtype, rows, cols);
    for (std::int64_t begin = 0; begin < rows * cols; begin += noise_count_) {
      const std::int64_t count = std::min(noise_count_, rows * cols - begin);
      const View piece(static_cast<std::byte*>(x.data) + static_cast<std::size_t>(begin) * size_of(dtype), dtype, 1, count);
      b_.convert({noise_.data(), A, 1, count}, piece);
    }
    return x;
  }
  View a(std::int64_t rows, std::int64_t cols) { return random(A, rows, cols); }
  View t(std::int64_t rows, std::int64_t cols) { return random(T_, rows, cols); }
  template <typename V>
  const V* array(const std::vector<V>& values) {
    buffers_.emplace_back(b_, values.size() * sizeof(V));
    b_.upload(buffers_.back().data(), values.data(), values.size() * sizeof(V));
    return static_cast<const V*>(buffers_.back().data());
  }

  /// Best seconds of one call, of calls queued one after the other.
  double time(const std::function<void()>& call) {
    call();
    b_.synchronize();
    double best = 1e30;
    int calls = 1;
    for (int stretch = 0; stretch < 4; ++stretch) {
      const double begin = seconds();
      for (int i = 0; i < calls; ++i) call();
      b_.synchronize();
      const double one = (seconds() - begin) / calls;
      best = std::min(best, one);
      calls = std::clamp(static_cast<int>(0.03 / one), 1, 1000);
    }
    return best;
  }
  void line(const char* part, const std::string& what, double seconds, double amount, double unit, const char* name, double ceiling) {
    std::printf("{\"part\": \"%s\", \"what\": \"%s\", \"us\": %.2f, \"value\": %.5g, \"unit\": \"%s\"", part, what.c_str(), seconds * 1e6,
                amount / seconds / unit, name);
    if (ceiling > 0) std::printf(", \"share\": %.4f", amount / seconds / ceiling);
    std::printf("}\n");
    std::fflush(stdout);
  }
  void moves(const char* what, double bytes, const std::function<void()>& call) {
    line("memory", what, time(call), bytes, 1e9, "GB/s", copy_);
  }
  void multiplies(const char* part, const std::string& what, double flops, const std::function<void()>& call) {
    line(part, what, time(call), flops, 1e12, "TFLOP/s", product_);
  }
  void linear(const std::string& name, std::int64_t N, std::int64_t O, std::int64_t I);
  void attend(std::int64_t H, std::int64_t K, std::int64_t D, std::int64_t length, std::int64_t sequences);

  /// Prints which share of the numbers of two matrices in the activation dtype differ.
  void differ(const std::string& what, View a, View b);

  Backend& b_;
  Backend* warpgroups_;
  DType T_;
  int scale_;
  Buffer noise_;
  std::int64_t noise_count_ = 0;
  std::list<Buffer> buffers_;
  double copy_ = 0, product_ = 0;  // B/s, FLOP/s
};

void Bench::copy() {
  const std::int64_t count = scaled(std::int64_t{1} << 29);
  const View from = a(1, count), to = empty(A, 1, count);
  const double one = time([&] { b_.convert(from, to); }), bytes = 8.0 * static_cast<double>(count);
  copy_ = bytes / one;
  line("copy", "convert float32 to float32", one, bytes, 1e9, "GB/s", 0);
  buffers_.clear();
}

void Bench::memory() {
  constexpr std::int64_t C = 896, H = 14, K = 2, D = 64, F = 4864, V = 151936;
  const std::int64_t N = scaled(16384), P = b_.page_positions();
  const double st = static_cast<double>(size_of(T_)), n = static_cast<double>(N);
  const AttentionShape shape{.heads = H, .kv_heads = K, .head_dim = D, .scale = 0.125f};
  std::vector<std::int32_t> tokens(N), positions(N), rows(N + 1);
  std::iota(rows.begin(), rows.end(), 0);
  for (std::int64_t i = 0; i < N; ++i) {
    tokens[i] = static_cast<std::int32_t>(random_words(1, RandomUse::Sampling, 0, static_cast<std::uint64_t>(i))[0] % V);
    positions[i] = static_cast<std::int32_t>(i % 1024);
  }
  const auto *positions_d = array(positions), *rows_d = array(rows);
  const CacheWrites writes{rows_d, rows_d};  // row n to slot n
  Buffer store(b_, static_cast<std::size_t>((N + P - 1) / P) * b_.page_bytes(shape));

  const View table = a(scaled(V), C), x = a(N, C), normed = t(N, C), rstd = a(1, N), weight = a(1, C), dy = a(N, C), dx = a(N, C);
  std::vector<std::int32_t> small_tokens(tokens);
  for (std::int32_t& token : small_tokens) token %= static_cast<std::int32_t>(table.rows);
  const auto* table_tokens = array(small_tokens);
  const View dweight = a(1, C), dbias = a(1, (H + 2 * K) * D), qkv = t(N, (H + 2 * K) * D), q = t(N, H * D), k = t(N, K * D);
  const View head_norm = a(1, D), rope = a(1024, D), gate_up = t(N, 2 * F), h = t(N, F), dh = t(N, F), dgate_up = t(N, 2 * F);
  const View dq = a(N, H * D), dk = a(N, K * D), dv = a(N, K * D), dqkv = t(N, (H + 2 * K) * D), dnorm = a(1, D);
  moves("convert float32 to bfloat16", n * C * (4 + st), [&] { b_.convert(x, normed); });
  moves("embed forward", n * C * 8, [&] { b_.embed_forward(table_tokens, table, x); });
  moves("embed backward", n * C * 12, [&] { b_.embed_backward(table_tokens, dx, table); });
  moves("norm forward", n * C * (4 + st), [&] { b_.norm_forward(x, weight, 1e-6, normed, rstd); });
  moves("norm backward", n * C * (16 + st), [&] { b_.norm_backward(x, weight, rstd, dy, dx, normed, dweight); });
  moves("bias backward", n * (H + 2 * K) * D * st, [&] { b_.bias_backward(dqkv, dbias); });
  moves("rope and cache", n * ((H + 2 * K) * 2 + K) * D * st,
        [&] { b_.rope_forward(qkv, {}, {}, 1e-6, positions_d, rope, shape, writes, store.data(), q, k); });
  moves("q/k norm, rope and cache", n * ((H + 2 * K) * 2 + K) * D * st,
        [&] { b_.rope_forward(qkv, head_norm, head_norm, 1e-6, positions_d, rope, shape, writes, store.data(), q, k); });
  moves("rope backward", n * (H + 2 * K) * D * (4 + st),
        [&] { b_.rope_backward(dq, dk, dv, qkv, {}, {}, 1e-6, positions_d, rope, shape, dqkv, {}, {}); });
  moves("rope and q/k norm backward", n * ((H + 2 * K) * D * (4 + st) + (H + K) * D * st), [&] {
    b_.rope_backward(dq, dk, dv, qkv, head_norm, head_norm, 1e-6, positions_d, rope, shape, dqkv, dnorm, dnorm);
  });
  moves("swiglu forward", n * F * 3 * st, [&] { b_.swiglu_forward(gate_up, h); });
  moves("swiglu backward", n * F * 5 * st, [&] { b_.swiglu_backward(dh, gate_up, dgate_up); });
  moves("gather rows", n * C * 8, [&] { b_.gather_rows(x, rows_d, dx); });
  moves("scatter rows", n * C * 12, [&] { b_.scatter_add_rows(x, rows_d, dx); });
  buffers_.clear();

  const std::int64_t chunk = 256;
  std::vector<std::int32_t> row_begin(chunk + 1);
  std::iota(row_begin.begin(), row_begin.end(), 0);
  tokens.resize(chunk);
  const Targets targets{array(row_begin), array(tokens), chunk};
  const View logits = a(chunk, V), statistics = a(5, chunk), dlogits = t(chunk, V), nothing;
  const auto row = [&](int i) { return statistics.slice_rows(i, 1); };
  moves("log-prob forward", chunk * V * 4.0, [&] { b_.logprob_forward(logits, 1.25, targets, row(0), row(1), row(2), nothing, 0); });
  moves("log-prob backward", chunk * V * (4 + st),
        [&] { b_.logprob_backward(logits, 1.25, targets, row(1), row(2), row(0), row(3), dlogits); });
  std::vector<SampleRow> rules(chunk);
  for (std::uint32_t i = 0; i < rules.size(); ++i) rules[i] = {.seed = 1, .rollout = i, .position = 5, .temperature = 0.8};
  auto* drawn = const_cast<std::int32_t*>(array(tokens));
  const SampleRow* plain = array(rules);
  moves("sample", chunk * V * 4.0, [&] { b_.sample(logits, plain, {}, drawn, row(4)); });
  for (SampleRow& rule : rules) rule.top_k = 50, rule.top_p = 0.95f;
  const SampleRow* filtered = array(rules);
  moves("sample, top-k and top-p", chunk * V * 4.0, [&] { b_.sample(logits, filtered, {}, drawn, row(4)); });
  buffers_.clear();

  const std::int64_t parameters = scaled(std::int64_t{1} << 28);
  const View gradient = a(1, parameters), master = a(1, parameters), m = a(1, parameters), variance = empty(A, 1, parameters);
  const auto random16 = [&] { return random(DType::BFloat16, 1, parameters); };
  const View master16 = random16(), m16 = random16(), variance16 = empty(DType::BFloat16, 1, parameters);
  b_.fill_zero(variance);
  b_.fill_zero(variance16);
  AdamW options;
  options.learning_rate = 1e-6;
  const double p = static_cast<double>(parameters);
  auto* sum = const_cast<double*>(array(std::vector<double>(1)));
  moves("fill zero", p * 4, [&] { b_.fill_zero(gradient); });
  moves("sum of squares", p * 4, [&] { b_.sum_squares(master, sum); });
  moves("AdamW, float32", p * 28, [&] { b_.adamw(master, m, variance, gradient, options); });
  moves("AdamW, bfloat16", p * 16, [&] { b_.adamw(master16, m16, variance16, gradient, options); });
  moves("average", p * 12, [&] { b_.average(m, master, 0.99); });
  buffers_.clear();
}

void Bench::linear(const std::string& name, std::int64_t N, std::int64_t O, std::int64_t I) {
  const auto weight = b_.make_weight(O, I, true);
  const View x = t(N, I), y = t(N, O), wide = a(N, O), dx = a(N, I), dw = a(O, I);
  b_.pack_weight(*weight, dw);
  const double flops = 2.0 * static_cast<double>(N) * static_cast<double>(O) * static_cast<double>(I);
  const std::string what = name + ", " + std::to_string(N) + " rows, ";
  const bool decoding = N <= 256;
  multiplies("product", what + "forward", flops, [&] { b_.linear_forward(x, *weight, {}, {}, y); });
  multiplies("product", what + "forward with residual", flops, [&] { b_.linear_forward(x, *weight, {}, wide, wide); });
  if (!decoding) {
    multiplies("product", what + "backward input", flops, [&] { b_.linear_backward_input(y, *weight, dx, false); });
    multiplies("product", what + "backward weight", flops, [&] { b_.linear_backward_weight(y, x, dw); });
  }
  buffers_.clear();
}

void Bench::ceiling() {
  const std::int64_t cube = scaled(8192);
  const auto weight = b_.make_weight(cube, cube, false);
  const View x = t(cube, cube), y = t(cube, cube), master = a(cube, cube);
  b_.pack_weight(*weight, master);
  const double one = time([&] { b_.linear_forward(x, *weight, {}, {}, y); }), c = static_cast<double>(cube);
  product_ = 2 * c * c * c / one;
  line("ceiling", "product of " + std::to_string(cube) + " cubed", one, 2 * c * c * c, 1e12, "TFLOP/s", 989e12);
  buffers_.clear();
}

void Bench::products() {
  struct Model {
    const char* name;
    std::int64_t C, qkv, F;
  };
  for (const Model& m : {Model{"0.5B", 896, 1152, 4864}, Model{"1.5B", 1536, 2048, 8960}})
    for (const std::int64_t N : {scaled(16384), std::int64_t{256}}) {
      const std::string name = m.name;
      linear(name + " qkv", N, m.qkv, m.C);
      linear(name + " o", N, m.C, m.C);
      linear(name + " gate and up", N, 2 * m.F, m.C);
      linear(name + " down", N, m.C, m.F);
      if (N == 256) linear(name + " head", N, scaled(151936), m.C);
      }
}

void Bench::differ(const std::string& what, View a, View b) {
  const std::size_t size = size_of(T_), bytes = static_cast<std::size_t>(a.cols) * size;
  std::vector<std::byte> x(bytes), y(bytes);
  std::int64_t differences = 0;
  for (std::int64_t n = 0; n < a.rows; ++n) {
    b_.download(x.data(), a.slice_rows(n, 1).data, bytes);
    b_.download(y.data(), b.slice_rows(n, 1).data, bytes);
    for (std::int64_t i = 0; i < a.cols; ++i) differences += std::memcmp(&x[i * size], &y[i * size], size) != 0;
  }
  std::printf("{\"part\": \"attention bits\", \"what\": \"%s\", \"value\": %.6g, \"unit\": \"share that differs\"}\n", what.c_str(),
              static_cast<double>(differences) / static_cast<double>(a.elements()));
  std::fflush(stdout);
}

void Bench::attend(std::int64_t H, std::int64_t K, std::int64_t D, std::int64_t length, std::int64_t sequences) {
  const std::int64_t N = length * sequences, P = b_.page_positions(), blocks = (length + P - 1) / P;
  const AttentionShape shape{.heads = static_cast<int>(H), .kv_heads = static_cast<int>(K), .head_dim = static_cast<int>(D), .scale = 0.1f};
  std::vector<Run> runs, last;
  std::vector<std::int32_t> tables, trees{0}, rows(N + 1), slots(N);
  std::iota(rows.begin(), rows.end(), 0);
  std::vector<std::int64_t> path_begin;
  for (std::int64_t s = 0; s < sequences; ++s) {
    const auto table = static_cast<std::int32_t>(s);
    runs.push_back({static_cast<std::int32_t>(s * length), static_cast<std::int32_t>(length), 0, table});
    last.push_back({table, 1, static_cast<std::int32_t>(length - 1), table});
    path_begin.push_back(s * length);
    trees.push_back(static_cast<std::int32_t>(s + 1));
    for (std::int64_t block = 0; block < blocks; ++block) tables.push_back(static_cast<std::int32_t>(s * blocks + block));
    for (std::int64_t i = 0; i < length; ++i) slots[s * length + i] = static_cast<std::int32_t>(s * blocks * P + i);
  }
  const std::int32_t *tables_d = array(tables), *rows_d = array(rows);
  const Run* runs_d = array(runs);
  Buffer store(b_, static_cast<std::size_t>(sequences * blocks) * b_.page_bytes(shape));
  const View qkv = t(N, (H + 2 * K) * D), q = t(N, H * D), k = t(N, K * D), v = qkv.slice_cols((H + K) * D, K * D);
  const View out = t(N, H * D), lse = a(N, H), nothing;
  const View dout = t(N, H * D), dq = a(N, H * D), dk = a(N, K * D), dv = a(N, K * D);
  b_.rope_forward(qkv, {}, {}, 1e-6, array(std::vector<std::int32_t>(N, 0)), a(1, D), shape, {rows_d, array(slots)}, store.data(), q, k);
  const PagedPaths paged{runs_d, sequences, length, tables_d, blocks, length};
  const PackedPaths packed{runs_d, sequences, array(trees), sequences, array(path_begin), rows_d, length};
  const std::string what = "D " + std::to_string(D) + ", H " + std::to_string(H) + ", K " + std::to_string(K) + ", " +
                           std::to_string(sequences) + " x " + std::to_string(length);
  // Scores that a causal mask keeps.
  const double pairs = static_cast<double>(sequences) * static_cast<double>(length) * static_cast<double>(length + 1) / 2;
  const double flops = 4 * pairs * static_cast<double>(H * D);
  multiplies("attention", what + ", forward", flops, [&] { b_.attention_forward(q, store.data(), paged, shape, out, lse); });
  multiplies("attention", what + ", backward", 2.5 * flops,
             [&] { b_.attention_backward(q, k, v, out, dout, lse, packed, shape, dq, dk, dv); });
  // One new token each: every key and value is read once.
  const Run* last_d = array(last);
  const View q1 = q.slice_rows(0, sequences), out1 = out.slice_rows(0, sequences);
  const PagedPaths step{last_d, sequences, 1, tables_d, blocks, length};
  line("attention", what + ", decode", time([&] { b_.attention_forward(q1, store.data(), step, shape, out1, nothing); }),
       2.0 * static_cast<double>(N * K * D) * static_cast<double>(size_of(T_)), 1e9, "GB/s", copy_);
  if (warpgroups_ && N <= 16384) {
    // A rollout's bits come of decoding, by mma.sync, and training's of the kernels for many rows.
    const View other = t(N, H * D), decoded = t(sequences, H * D);
    const auto last_of = [&](const View& x) {
      const View row = x.slice_rows(length - 1, 1);
      return View(row.data, T_, sequences, x.cols, length * x.cols);
    };
    b_.attention_forward(q, store.data(), paged, shape, out, lse);
    b_.attention_forward(last_of(q), store.data(), step, shape, decoded, nothing);
    b_.synchronize();
    warpgroups_->attention_forward(q, store.data(), paged, shape, other, lse);
    warpgroups_->synchronize();
    differ(what + ", mma.sync against decoding", last_of(out), decoded);
    differ(what + ", wgmma against decoding", last_of(other), decoded);
    const std::int64_t some = std::min<std::int64_t>(N, 2048);
    differ(what + ", wgmma against mma.sync", other.slice_rows(0, some), out.slice_rows(0, some));
  }
  buffers_.clear();
}

void Bench::attention() {
  for (const std::int64_t length : {1024, 2048, 8192}) attend(16, 4, 128, scaled(length), std::max<std::int64_t>(1, 16384 / length));
  attend(14, 2, 64, scaled(1024), 16);
  attend(14, 2, 64, scaled(1024), 256 / std::min(scale_, 64));
}

/// The device with attention by wgmma; null where it has none, and where the choice has been made by whoever runs this.
std::unique_ptr<Backend> open_with_warpgroups(const std::string& device, const std::string& library) {
  if (device == "cpu" || std::getenv("FORETOKEN_CUDA_ATTENTION")) return nullptr;
  setenv("FORETOKEN_CUDA_ATTENTION", "wgmma", 1);
  std::unique_ptr<Backend> result;
  try {
    result = open_device(device, library, DType::BFloat16);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::DeviceUnavailable) throw;
  }
  unsetenv("FORETOKEN_CUDA_ATTENTION");
  return result;
}

}  // namespace

int main(int argc, char** argv) {
  std::string device = "cuda", library, part;
  int scale = 1;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string key = argv[i], value = argv[i + 1];
    if (key == "--library") library = value;
    else if (key == "--device") device = value;
    else if (key == "--part") part = value;
    else if (key == "--scale") scale = std::stoi(value);
    else { std::fprintf(stderr, "unknown option %s\n", key.c_str()); return 2; }
  }
  try {
    const auto backend = open_device(device, library, DType::BFloat16);
    std::printf("{\"part\": \"device\", \"what\": \"%s\"}\n", backend->description().c_str());
    const auto warpgroups = part.empty() || part == "attention" ? open_with_warpgroups(device, library) : nullptr;
    Bench bench(*backend, warpgroups.get(), scale);
    bench.copy();
    if (part.empty() || part == "memory") bench.memory();
    bench.ceiling();
    if (part.empty() || part == "product") bench.products();
    if (part.empty() || part == "attention") bench.attention();
  } catch (const Error& error) {
    std::fprintf(stderr, "%s: %s\n", error_code_name(error.code()), error.what());
    return 1;
  }
}
