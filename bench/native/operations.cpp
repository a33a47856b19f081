// Every operation of the CPU backend but the products, on the first shape of bench/peers (C 384, L 6, H 6, K 2, D 64,
// F 1024, V 8192): one micro-batch of training (4 contexts of 128 tokens, each with 8 rollouts of 64) and one step of
// decoding 32 of these rollouts. Memory-bound ones as a share of the copy bandwidth measured here (more than 100 % is
// the cache at work), attention as a share of the float32 product measured here; and what all of them take beside the
// products of the same step.
//
//   operations [--dtype bfloat16] [--threads 2] [--only attention]

#include <cstdio>
#include <cstring>
#include <list>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "support/ceiling.h"

using namespace foretoken;
using namespace foretoken::bench;

namespace {

constexpr std::int64_t C = 384, L = 6, H = 6, K = 2, D = 64, F = 1024, V = 8192, P = 16;
constexpr int kContexts = 4, kContext = 128, kGroup = 8, kNew = 64, kLength = kContext + kNew;
constexpr std::int64_t N = kContexts * (kContext + kGroup * kNew), kPerTree = N / kContexts;
constexpr std::int64_t kPagesPerLeaf = kNew / P, kPagesPerTree = kContext / P + kGroup * kPagesPerLeaf;

/// Operands of one step in a backend's memory, and the times.
class Bench {
 public:
  Bench(DType dtype, int threads, std::string only)
      : backend_(make_cpu_backend({.dtype = dtype, .threads = threads})), T_(dtype), only_(std::move(only)) {
    product_ = Ceiling(DType::Float32, threads).ours();
    ThreadTeam team(threads);
    constexpr std::size_t bytes = std::size_t{32} << 20, piece = bytes / 64;
    std::vector<char> from(bytes, 1), to(bytes, 2);
    const double time = best_time([&] {
      team.parallel_for(64, [&](std::int64_t i, int) { std::memcpy(&to[i * piece], &from[i * piece], piece); });
    }, 3, 0.03);
    copy_ = 2e-9 * bytes / time;
    std::printf("%s: copy %.1f GB/s, float32 product %.0f GFLOP/s\n", backend_->description().c_str(), copy_, product_);
  }

  void run();

 private:
  View random(DType dtype, std::int64_t rows, std::int64_t cols) {
    const std::vector<float> values = random_floats(rows * cols, ++stream_);
    std::vector<BFloat16> narrow(values.begin(), values.end());
    buffers_.emplace_back(*backend_, values.size() * size_of(dtype));
    const void* source = dtype == DType::Float32 ? static_cast<const void*>(values.data()) : narrow.data();
    backend_->upload(buffers_.back().data(), source, values.size() * size_of(dtype));
    return {buffers_.back().data(), dtype, rows, cols};
  }
  View a(std::int64_t rows, std::int64_t cols) { return random(DType::Float32, rows, cols); }
  View t(std::int64_t rows, std::int64_t cols) { return random(T_, rows, cols); }

  bool wanted(const char* what) const { return std::string(what).find(only_) != std::string::npos; }
  double time(const std::function<void()>& call) { return best_time(call, 12, 0.004); }
  void line(const char* what, double times, double seconds, double amount, double ceiling, const char* unit) {
    const double rate = amount / seconds * 1e-9;
    std::printf("  %-26s %9.1f us x %2.0f %9.1f %s %6.1f %%\n", what, seconds * 1e6, times, rate, unit,
                100 * rate / ceiling);
    others_ += times * seconds;
  }
  /// An operation that moves `bytes`, done `times` times a step.
  void memory(const char* what, double times, double bytes, const std::function<void()>& call) {
    if (wanted(what)) line(what, times, time(call), bytes, copy_, "GB/s   ");
  }
  void attention(const char* what, double times, double flops, const std::function<void()>& call) {
    if (wanted(what)) line(what, times, time(call), flops, product_, "GFLOP/s");
  }
  /// The products of a linear layer (O, I) in a step.
  void linear(std::int64_t rows, std::int64_t outputs, std::int64_t inputs, bool training) {
    const auto weight = backend_->make_weight(outputs, inputs, training);
    const View x = t(rows, inputs), y = t(rows, outputs), dx = a(rows, inputs), dw = a(outputs, inputs);
    backend_->pack_weight(*weight, dw);
    double seconds = time([&] { backend_->linear_forward(x, *weight, {}, {}, y); });
    if (training) {
      seconds += time([&] { backend_->linear_backward_input(y, *weight, dx, false); });
      seconds += time([&] { backend_->linear_backward_weight(y, x, dw); });
    }
    products_ += (outputs == V ? 1 : L) * seconds;
  }
  void products(std::int64_t rows, bool training) {
    products_ = 0;
    if (!only_.empty()) return;
    linear(rows, (H + 2 * K) * D, C, training);
    linear(rows, C, H * D, training);
    linear(rows, 2 * F, C, training);
    linear(rows, C, F, training);
    linear(rows, V, C, training);
    std::printf("  all of these %.2f ms, the products %.2f ms: %.1f %% of a step is not products\n", others_ * 1e3,
                products_ * 1e3, 100 * others_ / (others_ + products_));
    others_ = 0;
  }
  void training();
  void decoding();

  std::unique_ptr<Backend> backend_;
  DType T_;
  std::string only_;
  std::list<Buffer> buffers_;
  std::uint32_t stream_ = 0;
  double copy_ = 0, product_ = 0, others_ = 0, products_ = 0;
};

AttentionShape shape() { return {.heads = H, .kv_heads = K, .head_dim = D, .scale = 0.125f}; }

/// The first row of leaf g of a tree, from the tree's first row on.
std::int32_t leaf_row(int g) { return kContext + g * kNew; }

/// Page tables of the leaves (kContexts · kGroup, kLength / P): the context's pages are shared.
std::vector<std::int32_t> leaf_tables() {
  std::vector<std::int32_t> tables;
  for (int tree = 0; tree < kContexts; ++tree)
    for (int g = 0; g < kGroup; ++g)
      for (int b = 0; b < kLength / P; ++b) {
        const std::int64_t page = b < kContext / P ? b : b + g * kPagesPerLeaf;
        tables.push_back(static_cast<std::int32_t>(tree * kPagesPerTree + page));
      }
  return tables;
}

void Bench::training() {
  std::printf("training, %lld tokens\n", static_cast<long long>(N));
  Backend& b = *backend_;
  const double st = static_cast<double>(size_of(T_)), n = N;
  std::vector<Run> runs;
  std::vector<std::int32_t> positions, tokens, trees{0}, path_rows, slots, tables = leaf_tables();
  std::vector<std::int64_t> path_begin;
  for (int tree = 0; tree < kContexts; ++tree) {
    const std::int32_t first = static_cast<std::int32_t>(tree * kPerTree);
    for (int run = 0; run <= kGroup; ++run) {
      const std::int32_t row = run == 0 ? first : first + leaf_row(run - 1);
      const std::int32_t table = tree * kGroup + std::max(0, run - 1);
      runs.push_back({row, run == 0 ? kContext : kNew, run == 0 ? 0 : kContext, table});
      path_begin.push_back(static_cast<std::int64_t>(path_rows.size()));
      for (int p = 0; p < kContext; ++p) path_rows.push_back(first + p);
      for (int p = 0; run > 0 && p < kNew; ++p) path_rows.push_back(row + p);
      for (int i = 0; i < runs.back().count; ++i) {
        const int position = runs.back().position + i;
        positions.push_back(position);
        const std::int64_t page = tables[static_cast<std::size_t>(table * (kLength / P) + position / P)];
        slots.push_back(static_cast<std::int32_t>(page * P + position % P));
        tokens.push_back(static_cast<std::int32_t>(random_words(1, RandomUse::Sampling, 0, tokens.size())[0] % V));
      }
    }
    trees.push_back(static_cast<std::int32_t>(runs.size()));
  }
  std::vector<std::int32_t> rows(N + 1);
  std::iota(rows.begin(), rows.end(), 0);
  const CacheWrites writes{rows.data(), slots.data()};
  const std::int64_t count = static_cast<std::int64_t>(runs.size());
  const PagedPaths paged{runs.data(), count, kContext, tables.data(), kLength / P, kLength};
  const PackedPaths packed{runs.data(), count, trees.data(), kContexts, path_begin.data(), path_rows.data(), kLength};
  Buffer pages(b, static_cast<std::size_t>(kContexts * kPagesPerTree) * b.page_bytes(shape()));

  const View table = a(V, C), x = a(N, C), normed = t(N, C), rstd = a(1, N), weight = a(1, C);
  const View qkv = t(N, (H + 2 * K) * D);
  const View q = t(N, H * D), k = t(N, K * D), v = qkv.slice_cols((H + K) * D, K * D), out = t(N, H * D), lse = a(N, H);
  const View head_norm = a(1, D), rope = a(kLength, D), gate_up = t(N, 2 * F), h = t(N, F);
  memory("embed forward", 1, n * C * 8, [&] { b.embed_forward(tokens.data(), table, x); });
  memory("norm forward", 2 * L + 1, n * C * (4 + st), [&] { b.norm_forward(x, weight, 1e-6, normed, rstd); });
  memory("q/k norm, rope and cache", L, n * ((H + 2 * K) * 2 + K) * D * st, [&] {
    b.rope_forward(qkv, head_norm, head_norm, 1e-6, positions.data(), rope, shape(), writes, pages.data(), q, k);
  });
  const double context_pairs = kContext * (kContext + 1) / 2.0, leaf_pairs = kNew * kContext + kNew * (kNew + 1) / 2.0;
  const double pairs = kContexts * (context_pairs + kGroup * leaf_pairs);
  attention("attention forward", L, pairs * H * D * 4,
            [&] { b.attention_forward(q, pages.data(), paged, shape(), out, lse); });
  memory("swiglu forward", L, n * F * 3 * st, [&] { b.swiglu_forward(gate_up, h); });

  const View dx = a(N, C), dy = a(N, C), dweight = a(1, C), dx_t = t(N, C), dh = t(N, F), dgate_up = t(N, 2 * F);
  const View dq = a(N, H * D), dk = a(N, K * D), dv = a(N, K * D), dnorm = a(1, D);
  const View dattention = t(N, H * D), dqkv = t(N, (H + 2 * K) * D);
  memory("convert", 1, n * C * (4 + st), [&] { b.convert(dx, dx_t); });
  memory("norm backward", 2 * L + 1, n * C * (16 + st), [&] { b.norm_backward(x, weight, rstd, dy, dx, dx_t, dweight); });
  memory("swiglu backward", L, n * F * 5 * st, [&] { b.swiglu_backward(dh, gate_up, dgate_up); });
  attention("attention backward", L, pairs * H * D * 10,
            [&] { b.attention_backward(q, k, v, out, dattention, lse, packed, shape(), dq, dk, dv); });
  memory("rope and norm backward", L, n * ((H + 2 * K) * D * (4 + st) + (H + K) * D * st), [&] {
    b.rope_backward(dq, dk, dv, qkv, head_norm, head_norm, 1e-6, positions.data(), rope, shape(), dqkv, dnorm, dnorm);
  });
  memory("embed backward", 1, n * C * 12, [&] { b.embed_backward(tokens.data(), dx, table); });

  const std::int64_t chunk = 256;
  std::vector<std::int32_t> row_begin(chunk + 1);
  std::iota(row_begin.begin(), row_begin.end(), 0);
  const Targets targets{row_begin.data(), tokens.data(), chunk};
  const View logits = a(chunk, V), statistics = a(4, chunk), dlogits = t(chunk, V), nothing;
  const auto row = [&](int i) { return statistics.slice_rows(i, 1); };
  const double chunks = n / chunk;
  memory("log-prob forward", chunks, chunk * V * 4.0,
         [&] { b.logprob_forward(logits, 1.25, targets, row(0), row(1), row(2), nothing, 0); });
  memory("log-prob backward", chunks, chunk * V * (4 + st),
         [&] { b.logprob_backward(logits, 1.25, targets, row(1), row(2), row(0), row(3), dlogits); });
  memory("gather rows", 1, n * C * 8, [&] { b.gather_rows(x, rows.data(), dx); });
  memory("scatter rows", 1, n * C * 12, [&] { b.scatter_add_rows(x, rows.data(), dx); });
  const std::int64_t parameters = V * C + L * (C * (H + 2 * K) * D + H * D * C + 3 * C * F);
  const View gradient = a(1, parameters), master = a(1, parameters), m = a(1, parameters), variance = a(1, parameters);
  b.fill_zero(variance);
  memory("fill zero", 1, parameters * 4.0, [&] { b.fill_zero(gradient); });
  const Buffer sum(b, sizeof(double));
  memory("sum of squares", 1, parameters * 4.0, [&] { b.sum_squares(gradient, static_cast<double*>(sum.data())); });
  AdamW options;
  options.learning_rate = 1e-6;
  memory("AdamW, float32", 1, parameters * 28.0, [&] { b.adamw(master, m, variance, gradient, options); });
  products(N, true);
  const auto bfloat16 = [&] { return random(DType::BFloat16, 1, parameters); };
  const View narrow = bfloat16(), m16 = bfloat16(), v16 = bfloat16();
  b.fill_zero(v16);
  memory("AdamW, bfloat16", 1, parameters * 16.0, [&] { b.adamw(narrow, m16, v16, gradient, options); });
  others_ = 0;
}

void Bench::decoding() {
  const std::int64_t rows = kContexts * kGroup;
  std::printf("decoding, %lld rollouts at position %d\n", static_cast<long long>(rows), kLength - 1);
  Backend& b = *backend_;
  const double st = static_cast<double>(size_of(T_)), n = static_cast<double>(rows);
  const std::vector<std::int32_t> tables = leaf_tables();
  std::vector<Run> runs;
  std::vector<std::int32_t> index(rows + 1), positions(rows, kLength - 1), slots, tokens(rows);
  std::iota(index.begin(), index.end(), 0);
  for (std::int32_t i = 0; i < rows; ++i) {
    runs.push_back({i, 1, kLength - 1, i});
    slots.push_back(static_cast<std::int32_t>(tables[static_cast<std::size_t>((i + 1) * (kLength / P) - 1)] * P + P - 1));
  }
  const PagedPaths paged{runs.data(), rows, 1, tables.data(), kLength / P, kLength};
  const View pages = t(kContexts * kPagesPerTree, 2 * P * K * D);
  const View x = a(rows, C), normed = t(rows, C), weight = a(1, C), qkv = t(rows, (H + 2 * K) * D);
  const View q = t(rows, H * D), out = t(rows, H * D), head_norm = a(1, D), rope = a(kLength, D);
  const View gate_up = t(rows, 2 * F), h = t(rows, F), logits = a(rows, V), logprobs = a(1, rows), table = a(V, C);
  const View nothing;
  memory("embed forward", 1, n * C * 8, [&] { b.embed_forward(tokens.data(), table, x); });
  memory("norm forward", 2 * L + 1, n * C * (4 + st), [&] { b.norm_forward(x, weight, 1e-6, normed, nothing); });
  memory("q/k norm, rope and cache", L, n * (H + 2 * K) * D * 2 * st, [&] {
    b.rope_forward(qkv, head_norm, head_norm, 1e-6, positions.data(), rope, shape(), {index.data(), slots.data()}, pages.data,
                   q, {});
  });
  attention("attention forward", L, n * kLength * H * D * 4,
            [&] { b.attention_forward(q, pages.data, paged, shape(), out, nothing); });
  memory("swiglu forward", L, n * F * 3 * st, [&] { b.swiglu_forward(gate_up, h); });
  std::vector<SampleRow> rules(rows);
  for (std::uint32_t i = 0; i < rows; ++i) rules[i] = {.seed = 1, .rollout = i, .position = 5, .temperature = 0.8f};
  const auto sample = [&] { b.sample(logits, rules.data(), {}, tokens.data(), logprobs); };
  memory("sample", 1, n * V * 4, sample);
  products(rows, false);
  for (SampleRow& rule : rules) { rule.top_k = 50; rule.top_p = 0.95f; }
  memory("sample, top-k and top-p", 1, n * V * 4, sample);
  others_ = 0;
}

void Bench::run() {
  training();
  decoding();
}

}  // namespace

int main(int count, char** arguments) {
  int threads = 0;
  DType dtype = DType::BFloat16;
  std::string only;
  for (int i = 1; i + 1 < count; i += 2) {
    const std::string name = arguments[i], value = arguments[i + 1];
    if (name == "--threads") threads = std::stoi(value);
    if (name == "--only") only = value;
    if (name == "--dtype") dtype = value == "float32" ? DType::Float32 : DType::BFloat16;
  }
  Bench(dtype, threads, only).run();
}
