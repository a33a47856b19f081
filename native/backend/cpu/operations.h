#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/matmul.h"
#include "core/thread_team.h"

namespace foretoken::cpu {

/// Floats that each thread takes to draw a token.
std::int64_t sample_scratch(std::int64_t vocabulary);

/// Paths of a tree whose gradients attention's backward pass holds at the same time, at most.
inline std::int64_t attention_paths_at_once(std::int64_t threads) { return threads == 1 ? 1 : 4 * threads; }

/// Rows that attention's backward pass takes of a run at a time.
inline constexpr std::int32_t kPieceRows = 256;

/// Elements that sum_squares adds up at a time.
inline constexpr std::int64_t kSquaresPiece = 4096;

/// The CPU backend: cuts every operation into tasks for the thread team and gives each to a kernel.
///
/// How rows are cut into tasks never shows in a result: rows are independent of each other, and sums over rows go over
/// pieces of kSumRows rows, which are then added in order.
class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const CpuOptions& options);

  std::string name() const override { return "cpu"; }
  std::string description() const override;
  DType activation_dtype() const override { return dtype_; }
  DType accumulation_dtype() const override { return DType::Float32; }

  void* allocate(std::size_t bytes) override;
  void release(void* data) noexcept override;
  void upload(void* device, const void* host, std::size_t bytes) override;
  void download(void* host, const void* device, std::size_t bytes) override;
  void synchronize() override {}
  std::size_t scratch_bytes() const override;
  std::size_t scratch_bytes_for(const PassExtent& pass) const override;
  void fill_zero(View x) override;
  void convert(View from, View to) override;

  void embed_forward(const std::int32_t* tokens, View table, View x) override;
  void embed_backward(const std::int32_t* tokens, View dx, View dtable) override;
  void norm_forward(View x, View weight, double epsilon, View y, View rstd) override;
  void norm_backward(View x, View weight, View rstd, View dy, View dx, View dx_t, View dweight) override;

  std::unique_ptr<Weight> make_weight(std::int64_t outputs, std::int64_t inputs, bool trainable) override;
  std::size_t weight_bytes(std::int64_t outputs, std::int64_t inputs, bool trainable) const override;
  void pack_weight(Weight& weight, View master) override;
  void linear_forward(View x, const Weight& weight, View bias, View residual, View y) override;
  void linear_backward_input(View dy, const Weight& weight, View dx, bool accumulate) override;
  void linear_backward_weight(View dy, View x, View dweight) override;
  void bias_backward(View dy, View dbias) override;

  void rope_forward(View qkv, View q_norm, View k_norm, double epsilon, const std::int32_t* positions, View rope,
                    const AttentionShape& shape, const CacheWrites& writes, void* pages, View q, View k) override;
  void rope_backward(View dq, View dk, View dv, View qkv, View q_norm, View k_norm, double epsilon,
                     const std::int32_t* positions, View rope, const AttentionShape& shape, View dqkv, View dq_norm,
                     View dk_norm) override;

  std::int64_t page_positions() const override { return kPagePositions; }
  std::size_t page_bytes(const AttentionShape& shape) const override;
  void cache_copy(const std::int32_t* from, const std::int32_t* to, std::int64_t count, const AttentionShape& shape,
                  void* pages, std::int64_t layers, std::size_t layer_bytes) override;
  void attention_forward(View q, const void* pages, const PagedPaths& paths, const AttentionShape& shape, View out,
                         View lse) override;
  void attention_backward(View q, View k, View v, View out, View dout, View lse, const PackedPaths& paths,
                          const AttentionShape& shape, View dq, View dk, View dv) override;

  void swiglu_forward(View gate_up, View h) override;
  void swiglu_backward(View dh, View gate_up, View dgate_up) override;
  void gather_rows(View x, const std::int32_t* index, View y) override;
  void scatter_add_rows(View dy, const std::int32_t* index, View dx) override;

  void logprob_forward(View logits, double inverse_temperature, const Targets& targets, View logprobs, View lse,
                       View entropy, View top_entropy, std::int32_t top_k) override;
  void logprob_backward(View logits, double inverse_temperature, const Targets& targets, View lse, View entropy,
                        View dlogprobs, View dentropy, View dlogits) override;
  void sample(View logits, const SampleRow* rows, const TokenRules& rules, std::int32_t* tokens, View logprobs) override;

  void sum_squares(View x, double* sum) override;
  void clip_norm(const double* squares, std::int64_t count, double max_norm, double* scale) override;
  void adamw(View master, View m, View v, View gradient, const AdamW& options) override;
  void average(View average, View x, double tau) override;

 private:
  static constexpr std::int64_t kSumRows = 64;

  /// Calls body(first row, rows, worker) for pieces of about a hundredth of a millisecond's work.
  template <typename Body>
  void for_rows(std::int64_t rows, std::int64_t elements_per_row, const Body& body) {
    constexpr std::int64_t elements_per_task = 16384;
    const std::int64_t fitting = elements_per_task / std::max<std::int64_t>(elements_per_row, 1);
    const std::int64_t piece = std::clamp<std::int64_t>(fitting, 1, std::max<std::int64_t>(rows, 1));
    team_.parallel_for((rows + piece - 1) / piece, [&](std::int64_t task, int worker) {
      const std::int64_t begin = task * piece;
      body(begin, std::min(piece, rows - begin), worker);
    });
  }

  /// Calls body(row, first column, columns) for pieces of the elements, sixteen columns at least; a contiguous matrix
  /// counts as one row.
  template <typename Body>
  void for_elements(std::int64_t rows, std::int64_t cols, bool contiguous, const Body& body) {
    constexpr std::int64_t elements_per_task = 16384;
    if (contiguous) { cols *= rows; rows = cols ? 1 : 0; }
    const std::int64_t pieces = (cols + elements_per_task - 1) / elements_per_task;
    team_.parallel_for(rows * pieces, [&](std::int64_t task, int) {
      const std::int64_t begin = task % pieces * elements_per_task;
      body(task / pieces, begin, std::min(elements_per_task, cols - begin));
    });
  }

  /// total (cols) += the rows of parts (count, cols), in order.
  void add_parts(const float* parts, std::int64_t count, std::int64_t cols, float* total);

  /// Memory for the operation under way: `floats` for each of `parts`; grows when asked for more. Contents are lost.
  float* scratch(std::int64_t parts, std::int64_t floats);

  const Kernels& kernels_of(DType dtype) const;

  DType dtype_;
  Isa isa_;
  const Matmul& matmul_;
  const Kernels& kernels_;    // of activations
  const Kernels& kernels32_;  // of float32
  const Kernels& kernels16_;  // of bfloat16
  ThreadTeam team_;
  AlignedMemory scratch_;
  GradientWorkspace gradient_workspace_;
  std::vector<QueryRow> query_rows_;
  std::vector<QueryRun> query_runs_;       // pieces of attention_backward
  std::vector<std::int64_t> tree_pieces_;  // where each tree's begin, and the end
};

}  // namespace foretoken::cpu
