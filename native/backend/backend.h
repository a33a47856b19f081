#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/view.h"
#include "core/available_memory.h"

namespace foretoken {

// The fused operations that a device must have. Letters: N packed tokens, C hidden, H heads, K kv heads, D head size,
// F feed-forward, V vocabulary, P positions per page. `T` marks the backend's activation dtype (float32 or bfloat16;
// float64 in the reference), `A` its accumulation dtype (float32; float64 in the reference).
//
// Exactness class of every forward operation: bitwise. Row n of a result depends on row n of the inputs (and, in
// attention, on the keys and values at earlier positions of its own path) through sums whose order is a function of
// the layer's shape and of absolute positions only. Gradients of weights are sums over N in packed order: equal for
// every number of threads, but not for every way of packing.

/// One matrix that the backend multiplies by, in whatever layout it likes best; made by `Backend::make_weight`.
class Weight {
 public:
  virtual ~Weight() = default;
  virtual std::size_t bytes() const = 0;
};

/// Geometry of one attention layer.
struct AttentionShape {
  int heads = 0;          // H
  int kv_heads = 0;       // K, divides H
  int head_dim = 0;       // D
  float scale = 0;        // multiplies q·k, normally 1/sqrt(D)
  std::int32_t window = 0;  // a token sees positions (p - window, p]; 0 means all
};

/// Rows that follow each other in the batch and in position, and share a path: a segment in training, one token in decode.
struct Run {
  std::int32_t row;       // first row in the batch
  std::int32_t count;     // number of rows; 0: attention passes the run over
  std::int32_t position;  // absolute position (depth in the forest) of the first row
  std::int32_t table;     // index of the path's page table
};

/// Where the keys and values of each path lie: page table t holds the page of positions [b·P, (b+1)·P) at [t, b].
struct PagedPaths {
  const Run* runs = nullptr;              // (runs_count) device memory
  std::int64_t runs_count = 0;
  std::int64_t longest_run = 0;           // greatest Run::count
  const std::int32_t* tables = nullptr;   // (tables_count, table_stride) device memory
  std::int64_t table_stride = 0;
  std::int64_t longest_path = 0;          // greatest position + 1
};

/// The same paths for the backward pass, which reads keys and values from packed rows instead of pages.
/// Runs of one tree are neighbours, a parent before its children; no row of a tree is seen from outside it.
struct PackedPaths {
  const Run* runs = nullptr;                    // (runs_count) device memory
  std::int64_t runs_count = 0;
  const std::int32_t* trees = nullptr;          // (trees_count + 1) first run of each tree, device memory
  std::int64_t trees_count = 0;
  const std::int64_t* path_begin = nullptr;     // (runs_count) where the run's path begins in path_rows, device memory
  const std::int32_t* path_rows = nullptr;      // row of position 0, 1, … up to the run's last row, device memory
  std::int64_t longest_path = 0;
};

/// Where the keys and values of a batch's rows go, none or several places for each: row n goes to
/// slots[row_begin[n] … row_begin[n + 1]). Slot s is lane s mod P of page s / P.
struct CacheWrites {
  const std::int32_t* row_begin = nullptr;  // (N + 1) device memory
  const std::int32_t* slots = nullptr;      // (row_begin[N])
};

/// Targets of each row of a chunk of logits: row r predicts targets[row_begin[r] … row_begin[r + 1]). The chunk may be
/// a part of a longer list: row_begin[0] need not be 0, and values per target (log-probs) are indexed by the same numbers.
struct Targets {
  const std::int32_t* row_begin = nullptr;  // (rows + 1) device memory
  const std::int32_t* tokens = nullptr;     // (count) device memory
  std::int64_t count = 0;
};

/// The most that passes through a model ask of the operations, for the memory plan.
struct PassExtent {
  std::int64_t rows = 0, runs = 0, longest_path = 0;
  AttentionShape attention;
  std::int64_t hidden = 0, feed_forward = 0, vocabulary = 0;
  std::int64_t biased = 0;   // outputs of the widest layer with a bias and a result in T
  bool backward = false, sampling = false;  // whether there are such passes, beside forward ones
};

/// How to draw one row's token.
struct SampleRow {
  std::uint64_t seed = 0;
  std::uint32_t rollout = 0;    // with seed and position the key of the random draw
  std::uint32_t position = 0;   // index of the token within its rollout
  double temperature = 1;       // 0 takes the most likely token (the first of equals)
  std::int32_t top_k = 0;       // 0 means off
  float top_p = 1;
  float min_p = 0;              // relative to the most likely token's probability
  bool may_stop = true;         // false: stop tokens have no chance either
  bool draws = true;            // false: the row is padding, and nothing is written for it
  std::int32_t offset = 0;      // its token and log-prob are written this many places further on
};

/// Tokens that are special in sampling; device memory.
struct TokenRules {
  const std::int32_t* banned = nullptr;  // (banned_count) never drawn
  std::int64_t banned_count = 0;
  const std::int32_t* stops = nullptr;   // (stops_count) end a rollout
  std::int64_t stops_count = 0;
};

/// AdamW with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), bias-corrected.
struct AdamW {
  double learning_rate = 0, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0;
  std::int64_t step = 1;           // 1 for the first update
  std::uint64_t rounding_seed = 0; // stochastic rounding of bfloat16 masters and moments
  std::uint32_t rounding_stream = 0;  // one per parameter
  const double* gradient_scale = nullptr;  // device memory, from clip_norm; null means 1
};

/// What begin_sequence asks of the caller.
enum class Sequence : std::uint8_t {
  Run,     // make the calls
  Record,  // make the calls, which are only written down, and then end_sequence
  Done,    // nothing: what was written down has been queued
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::string name() const = 0;          // "cpu", "reference", "cuda:0"
  virtual std::string description() const = 0;   // instruction set and threads, or the GPU's name: recorded in manifests
  virtual DType activation_dtype() const = 0;    // T
  virtual DType accumulation_dtype() const = 0;  // A

  // ---- memory and ordering. Operations run in the order of the calls; only download and synchronize wait.
  virtual void* allocate(std::size_t bytes) = 0;       // 64-byte aligned, not cleared; Error OutOfMemory with numbers
  virtual void release(void* data) noexcept = 0;
  virtual void upload(void* device, const void* host, std::size_t bytes) = 0;   // host memory is free on return
  virtual void download(void* host, const void* device, std::size_t bytes) = 0; // complete on return
  virtual void synchronize() = 0;
  /// Whether operations are still under way when their calls return, so that it pays to queue more before reading results.
  virtual bool asynchronous() const { return false; }
  /// The next download of just these bytes gets them as they are now in the order of calls, and does not wait for what is
  /// called in between; nothing may write them until then. Forgotten when the memory is released.
  virtual void start_download(const void* /*device*/, std::size_t /*bytes*/) {}

  // ---- sequences of operations that come again with the same arguments, such as steps of decoding. A GPU writes them down
  // once and then queues them with one call. Between begin and end only operations are called: no allocation, release,
  // upload or download. A release of any memory forgets all that has been written down.
  virtual bool records() const { return false; }  // whether it pays to make arguments the same
  virtual Sequence begin_sequence(std::uint64_t /*key*/) { return Sequence::Run; }
  /// After Sequence::Record: queues what was written down. `complete` false: a call failed. Answers false where nothing
  /// has been queued, and the calls are to be made once more, with nothing between begin and end.
  virtual bool end_sequence(bool /*complete*/) { return true; }
  /// The calls that `calls()` makes, which the key determines altogether: operations, pointers, shapes. Numbers in device
  /// memory may differ from one time to the next.
  template <typename Calls>
  void sequence(std::uint64_t key, const Calls& calls);

  virtual std::size_t scratch_bytes() const = 0;       // held by the backend itself
  /// What `scratch_bytes` of a new backend will be after such passes, at most.
  virtual std::size_t scratch_bytes_for(const PassExtent& pass) const = 0;
  virtual std::size_t available_memory() const { return foretoken::available_memory(); }  // bytes that it could allocate now

  virtual void fill_zero(View x) = 0;
  virtual void convert(View from, View to) = 0;  // same rows and cols, any dtypes, rounding to nearest even

  // ---- embedding
  /// x (N, C) A = table (V, C)[tokens (N)], each value rounded to T first.
  virtual void embed_forward(const std::int32_t* tokens, View table, View x) = 0;
  /// dtable (V, C) A += dx (N, C) A at rows tokens (N); equal tokens are added in packed order.
  virtual void embed_backward(const std::int32_t* tokens, View dx, View dtable) = 0;

  // ---- RMSNorm (arXiv 1910.07467): y = x · rstd · w, rstd = 1 / sqrt(mean(x²) + eps)
  /// x (N, C) A, weight (1, C) A -> y (N, C) T, rstd (1, N) A.
  virtual void norm_forward(View x, View weight, double epsilon, View y, View rstd) = 0;
  /// dx (N, C) A += …, dx_t (N, C) T = the sum rounded (empty when not needed); dweight (1, C) A += …; dy (N, C) A.
  virtual void norm_backward(View x, View weight, View rstd, View dy, View dx, View dx_t, View dweight) = 0;

  // ---- linear layers: y = x · wᵀ
  /// Reserves an (outputs, inputs) matrix; `trainable` also keeps what linear_backward_input needs.
  virtual std::unique_ptr<Weight> make_weight(std::int64_t outputs, std::int64_t inputs, bool trainable) = 0;
  /// Bytes that make_weight will hold, for the memory plan.
  virtual std::size_t weight_bytes(std::int64_t outputs, std::int64_t inputs, bool trainable) const = 0;
  /// Takes over the values of master (outputs, inputs), any dtype, rounded to T.
  virtual void pack_weight(Weight& weight, View master) = 0;
  /// y (N, O) T or A = x (N, I) T · wᵀ [+ bias (1, O) A] [+ residual (N, O) A, which may be y itself].
  virtual void linear_forward(View x, const Weight& weight, View bias, View residual, View y) = 0;
  /// dx (N, I) T or A = dy (N, O) T · w [+ dx when `accumulate`, dx in A].
  virtual void linear_backward_input(View dy, const Weight& weight, View dx, bool accumulate) = 0;
  /// dweight (O, I) A += dyᵀ · x; dy (N, O) T, x (N, I) T.
  virtual void linear_backward_weight(View dy, View x, View dweight) = 0;
  /// dbias (1, O) A += column sums of dy (N, O) T.
  virtual void bias_backward(View dy, View dbias) = 0;

  // ---- per-head RMSNorm of q and k (optional) and rotary embedding (arXiv 2104.09864, halves rotated as in Llama)
  /// qkv (N, (H + 2K)·D) T -> q (N, H·D) T, k (N, K·D) T (empty when not needed), and k and v into this layer's pages
  /// (page p begins at pages + p · page_bytes). Norm weights (1, D) A or empty; rope (positions, D) A: cos in the first D/2
  /// columns, sin in the last.
  virtual void rope_forward(View qkv, View q_norm, View k_norm, double epsilon, const std::int32_t* positions, View rope,
                            const AttentionShape& shape, const CacheWrites& writes, void* pages, View q, View k) = 0;
  /// dq (N, H·D) A, dk and dv (N, K·D) A -> dqkv (N, (H + 2K)·D) T; dq_norm, dk_norm (1, D) A += (empty without norm).
  virtual void rope_backward(View dq, View dk, View dv, View qkv, View q_norm, View k_norm, double epsilon,
                             const std::int32_t* positions, View rope, const AttentionShape& shape, View dqkv,
                             View dq_norm, View dk_norm) = 0;

  // ---- attention over a paged key/value store
  virtual std::int64_t page_positions() const = 0;                                  // P
  virtual std::size_t page_bytes(const AttentionShape& shape) const = 0;            // keys and values of one page, one layer
  /// Page from[i] is copied to page to[i] for every i, in each of `layers` layers that lie layer_bytes apart.
  virtual void cache_copy(const std::int32_t* from, const std::int32_t* to, std::int64_t count, const AttentionShape& shape,
                          void* pages, std::int64_t layers, std::size_t layer_bytes) = 0;
  /// out (N, H·D) T = softmax(scale · q kᵀ) v over the positions of each row's path up to its own;
  /// lse (N, H) A = log-sum-exp of the scaled scores (empty when not needed). q (N, H·D) T.
  virtual void attention_forward(View q, const void* pages, const PagedPaths& paths, const AttentionShape& shape, View out,
                                 View lse) = 0;
  /// dq (N, H·D) A, dk and dv (N, K·D) A, overwritten; q, k, v, out and dout (N, H·D) T; lse (N, H) A.
  virtual void attention_backward(View q, View k, View v, View out, View dout, View lse, const PackedPaths& paths,
                                  const AttentionShape& shape, View dq, View dk, View dv) = 0;

  // ---- SwiGLU (arXiv 2002.05202): h = silu(gate) · up
  /// gate_up (N, 2F) T, gate in the first F columns -> h (N, F) T.
  virtual void swiglu_forward(View gate_up, View h) = 0;
  /// dh (N, F) T, gate_up (N, 2F) T -> dgate_up (N, 2F) T.
  virtual void swiglu_backward(View dh, View gate_up, View dgate_up) = 0;

  // ---- rows
  /// y (M, C) = x (N, C) at rows index (M), both A or both T.
  virtual void gather_rows(View x, const std::int32_t* index, View y) = 0;
  /// dx (N, C) A at rows index (M) += dy (M, C) A; the indices differ from each other.
  virtual void scatter_add_rows(View dy, const std::int32_t* index, View dx) = 0;

  /// tokens[i] = drawn[from[i]] where from[i] is not negative, else given[i]; all in device memory. A drawn one that is
  /// among the stop tokens has ended its row's rollout: runs[i].count becomes 0, so that attention passes it over.
  virtual void select_tokens(const std::int32_t* given, const std::int32_t* drawn, const std::int32_t* from,
                             std::int64_t count, const TokenRules& rules, std::int32_t* tokens, Run* runs) {
    for (std::int64_t i = 0; i < count; ++i) {
      tokens[i] = from[i] >= 0 ? drawn[from[i]] : given[i];
      for (std::int64_t s = 0; s < rules.stops_count; ++s)
        if (from[i] >= 0 && tokens[i] == rules.stops[s]) runs[i].count = 0;
    }
  }

  // ---- head: statistics of tempered log-softmax rows, p = softmax(logits · inverse_temperature)
  /// logits (n, V) A -> logprobs (1, targets.count) A, lse (1, n) A of the tempered logits, entropy (1, n) A in nats,
  /// top_entropy (1, n) A over the `top_k` most likely tokens, renormalised (skipped when the view is empty).
  virtual void logprob_forward(View logits, double inverse_temperature, const Targets& targets, View logprobs, View lse,
                               View entropy, View top_entropy, std::int32_t top_k) = 0;
  /// dlogits (n, V) T = inverse_temperature · (Σ_t dlogprobs[t] · (onehot(t) − p) − dentropy · p · (log p + entropy)),
  /// summed over the row's targets t; dlogprobs (1, targets.count) A, dentropy (1, n) A.
  virtual void logprob_backward(View logits, double inverse_temperature, const Targets& targets, View lse, View entropy,
                                View dlogprobs, View dentropy, View dlogits) = 0;
  /// Draws one token per row of logits (n, V) A. tokens (n), logprobs (1, n) A: log-prob of the drawn token under the
  /// whole tempered softmax (temperature 1 where it is 0), the same bits as logprob_forward gives.
  virtual void sample(View logits, const SampleRow* rows, const TokenRules& rules, std::int32_t* tokens, View logprobs) = 0;

  // ---- update
  /// sum (device memory) = Σ x² in float64 over fixed chunks in order. NaN and infinity show in the result.
  virtual void sum_squares(View x, double* sum) = 0;
  /// scale (device memory) = what brings gradients with those squared norms, squares (count) in device memory, to a norm of
  /// at most max_norm, as torch.nn.utils.clip_grad_norm_ has it: min(1, max_norm / (sqrt(Σ squares, in order) + 1e-6)), or
  /// 1 where max_norm is 0. NaN if the norm is not finite.
  virtual void clip_norm(const double* squares, std::int64_t count, double max_norm, double* scale) = 0;
  /// One AdamW update of master (any shape; float32, bfloat16 with stochastic rounding, or float64) from gradient A;
  /// moments m and v have the dtype of each other (float32, bfloat16 with stochastic rounding, or float64). A
  /// gradient_scale of NaN changes nothing.
  virtual void adamw(View master, View m, View v, View gradient, const AdamW& options) = 0;
  /// average = tau · average + (1 − tau) · x, elementwise, same dtype.
  virtual void average(View average, View x, double tau) = 0;
};

template <typename Calls>
void Backend::sequence(std::uint64_t key, const Calls& calls) {
  switch (begin_sequence(key)) {
    case Sequence::Done: return;
    case Sequence::Run: return calls();
    case Sequence::Record: break;
  }
  bool complete = true;
  try {
    calls();
  } catch (...) {
    complete = false;  // what the matter is shows when the calls are made in earnest
  }
  if (!end_sequence(complete)) calls();
}

/// Backend memory with an owner.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Backend& backend, std::size_t bytes) : backend_(&backend), data_(backend.allocate(bytes)), bytes_(bytes) {}
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept { swap(other); return *this; }
  ~Buffer() { if (data_) backend_->release(data_); }

  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  explicit operator bool() const { return data_ != nullptr; }

 private:
  void swap(Buffer& other) noexcept {
    std::swap(backend_, other.backend_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  Backend* backend_ = nullptr;
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

/// A host vector's copy in backend memory, which keeps its capacity from one use to the next.
template <typename T>
class DeviceArray {
 public:
  const T* assign(Backend& backend, std::span<const T> values) {
    if (values.size_bytes() > buffer_.bytes()) buffer_ = Buffer(backend, values.size_bytes() + values.size_bytes() / 2);
    if (!values.empty()) backend.upload(buffer_.data(), values.data(), values.size_bytes());
    count_ = values.size();
    return data();
  }
  T* reserve(Backend& backend, std::size_t count) {
    if (count * sizeof(T) > buffer_.bytes()) buffer_ = Buffer(backend, count * sizeof(T));
    count_ = count;
    return data();
  }
  T* data() const { return static_cast<T*>(buffer_.data()); }
  std::size_t size() const { return count_; }
  std::size_t bytes() const { return buffer_.bytes(); }

 private:
  Buffer buffer_;
  std::size_t count_ = 0;
};

/// The double-precision specification of every operation; slow, plain, the oracle of the tests.
std::unique_ptr<Backend> make_reference_backend();

}  // namespace foretoken
