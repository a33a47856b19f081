#pragma once

#include "backend/backend.h"
#include "backend/reference/element.h"

namespace foretoken {

/// Every operation as its formula, in double precision and one thread; views may have any dtype.
/// The operations are documented in backend.h. Each group of overrides below is one file of this folder.
class ReferenceBackend final : public Backend {
 public:
  std::string name() const override { return "reference"; }
  std::string description() const override { return "plain double precision, one thread"; }
  DType activation_dtype() const override { return DType::Float64; }
  DType accumulation_dtype() const override { return DType::Float64; }

  // memory.cpp
  void* allocate(std::size_t bytes) override;
  void release(void* data) noexcept override;
  void upload(void* device, const void* host, std::size_t bytes) override;
  void download(void* host, const void* device, std::size_t bytes) override;
  void synchronize() override {}
  std::size_t scratch_bytes() const override { return 0; }
  std::size_t scratch_bytes_for(const PassExtent&) const override { return 0; }
  void fill_zero(View x) override;
  void convert(View from, View to) override;

  // embedding.cpp
  void embed_forward(const std::int32_t* tokens, View table, View x) override;
  void embed_backward(const std::int32_t* tokens, View dx, View dtable) override;

  // rms_norm.cpp
  void norm_forward(View x, View weight, double epsilon, View y, View rstd) override;
  void norm_backward(View x, View weight, View rstd, View dy, View dx, View dx_t, View dweight) override;

  // linear.cpp
  std::unique_ptr<Weight> make_weight(std::int64_t outputs, std::int64_t inputs, bool trainable) override;
  std::size_t weight_bytes(std::int64_t outputs, std::int64_t inputs, bool trainable) const override;
  void pack_weight(Weight& weight, View master) override;
  void linear_forward(View x, const Weight& weight, View bias, View residual, View y) override;
  void linear_backward_input(View dy, const Weight& weight, View dx, bool accumulate) override;
  void linear_backward_weight(View dy, View x, View dweight) override;
  void bias_backward(View dy, View dbias) override;

  // rope.cpp
  void rope_forward(View qkv, View q_norm, View k_norm, double epsilon, const std::int32_t* positions, View rope,
                    const AttentionShape& shape, const CacheWrites& writes, void* pages, View q, View k) override;
  void rope_backward(View dq, View dk, View dv, View qkv, View q_norm, View k_norm, double epsilon,
                     const std::int32_t* positions, View rope, const AttentionShape& shape, View dqkv, View dq_norm,
                     View dk_norm) override;

  // kv_cache.cpp: pages of 4 positions, so that small tests cross their borders
  std::int64_t page_positions() const override { return 4; }
  std::size_t page_bytes(const AttentionShape& shape) const override;
  void cache_copy(const std::int32_t* from, const std::int32_t* to, std::int64_t count, const AttentionShape& shape,
                  void* pages, std::int64_t layers, std::size_t layer_bytes) override;

  // attention.cpp
  void attention_forward(View q, const void* pages, const PagedPaths& paths, const AttentionShape& shape, View out,
                         View lse) override;
  void attention_backward(View q, View k, View v, View out, View dout, View lse, const PackedPaths& paths,
                          const AttentionShape& shape, View dq, View dk, View dv) override;

  // swiglu.cpp
  void swiglu_forward(View gate_up, View h) override;
  void swiglu_backward(View dh, View gate_up, View dgate_up) override;

  // rows.cpp
  void gather_rows(View x, const std::int32_t* index, View y) override;
  void scatter_add_rows(View dy, const std::int32_t* index, View dx) override;

  // logprob.cpp
  void logprob_forward(View logits, double inverse_temperature, const Targets& targets, View logprobs, View lse,
                       View entropy, View top_entropy, std::int32_t top_k) override;
  void logprob_backward(View logits, double inverse_temperature, const Targets& targets, View lse, View entropy,
                        View dlogprobs, View dentropy, View dlogits) override;

  // sample.cpp
  void sample(View logits, const SampleRow* rows, const TokenRules& rules, std::int32_t* tokens, View logprobs) override;

  // optimizer.cpp
  void sum_squares(View x, double* sum) override;
  void clip_norm(const double* squares, std::int64_t count, double max_norm, double* scale) override;
  void adamw(View master, View m, View v, View gradient, const AdamW& options) override;
  void average(View average, View x, double tau) override;
};

}  // namespace foretoken
