#pragma once

#include <memory>
#include <string>

#include "backend/backend.h"
#include "backend/cuda/device/device.h"
#include "backend/cuda/matmul.h"
#include "backend/cuda/recordings.h"

namespace foretoken::cuda {

/// The CUDA backend: each group of overrides below is one file of this folder, kernels and their launch together.
/// It knows the GPU only through Device and launch.h, so the same class computes on the host in tests.
class CudaBackend : public Backend {
 public:
  CudaBackend(std::unique_ptr<Device> device, DType dtype, bool allow_tf32 = false);
  ~CudaBackend() override;

  // memory.cu
  std::string name() const override { return device_->name(); }
  std::string description() const override;
  DType activation_dtype() const override { return dtype_; }
  DType accumulation_dtype() const override { return DType::Float32; }
  void* allocate(std::size_t bytes) override { return device_->allocate(bytes); }
  void release(void* data) noexcept override {
    device_->release(data);
    if (recordings_) recordings_->forget_stale();
  }
  void upload(void* device, const void* host, std::size_t bytes) override { device_->upload(device, host, bytes); }
  void download(void* host, const void* device, std::size_t bytes) override { device_->download(host, device, bytes); }
  void synchronize() override { device_->synchronize(); }
  bool asynchronous() const override { return true; }
  void start_download(const void* device, std::size_t bytes) override { device_->start_download(device, bytes); }
  bool records() const override { return recordings_ != nullptr; }
  Sequence begin_sequence(std::uint64_t key) override { return recordings_ ? recordings_->begin(key) : Sequence::Run; }
  bool end_sequence(bool complete) override { return recordings_->end(complete); }
  std::size_t scratch_bytes() const override;
  std::size_t available_memory() const override { return device_->available_memory(); }
  void fill_zero(View x) override;

  // scratch.cu
  std::size_t scratch_bytes_for(const PassExtent& pass) const override;

  // convert.cu
  void convert(View from, View to) override;

  // embed.cu
  void embed_forward(const std::int32_t* tokens, View table, View x) override;
  void embed_backward(const std::int32_t* tokens, View dx, View dtable) override;

  // norm.cu
  void norm_forward(View x, View weight, double epsilon, View y, View rstd) override;
  void norm_backward(View x, View weight, View rstd, View dy, View dx, View dx_t, View dweight) override;

  // linear.cu
  std::unique_ptr<Weight> make_weight(std::int64_t outputs, std::int64_t inputs, bool trainable) override;
  std::size_t weight_bytes(std::int64_t outputs, std::int64_t inputs, bool trainable) const override;
  void pack_weight(Weight& weight, View master) override;
  void linear_forward(View x, const Weight& weight, View bias, View residual, View y) override;
  void linear_backward_input(View dy, const Weight& weight, View dx, bool accumulate) override;
  void linear_backward_weight(View dy, View x, View dweight) override;

  // column_sums.cu
  void bias_backward(View dy, View dbias) override;

  // rope.cu
  void rope_forward(View qkv, View q_norm, View k_norm, double epsilon, const std::int32_t* positions, View rope,
                    const AttentionShape& shape, const CacheWrites& writes, void* pages, View q, View k) override;
  void rope_backward(View dq, View dk, View dv, View qkv, View q_norm, View k_norm, double epsilon,
                     const std::int32_t* positions, View rope, const AttentionShape& shape, View dqkv, View dq_norm,
                     View dk_norm) override;

  // cache.cu
  std::int64_t page_positions() const override;
  std::size_t page_bytes(const AttentionShape& shape) const override;
  void cache_copy(const std::int32_t* from, const std::int32_t* to, std::int64_t count, const AttentionShape& shape,
                  void* pages, std::int64_t layers, std::size_t layer_bytes) override;

  // attention_forward.cu, attention_backward.cu
  void attention_forward(View q, const void* pages, const PagedPaths& paths, const AttentionShape& shape, View out,
                         View lse) override;
  void attention_backward(View q, View k, View v, View out, View dout, View lse, const PackedPaths& paths,
                          const AttentionShape& shape, View dq, View dk, View dv) override;

  // swiglu.cu
  void swiglu_forward(View gate_up, View h) override;
  void swiglu_backward(View dh, View gate_up, View dgate_up) override;

  // rows.cu
  void gather_rows(View x, const std::int32_t* index, View y) override;
  void scatter_add_rows(View dy, const std::int32_t* index, View dx) override;
  void select_tokens(const std::int32_t* given, const std::int32_t* drawn, const std::int32_t* from, std::int64_t count,
                     const TokenRules& rules, std::int32_t* tokens, Run* runs) override;

  // logprob.cu
  void logprob_forward(View logits, double inverse_temperature, const Targets& targets, View logprobs, View lse,
                       View entropy, View top_entropy, std::int32_t top_k) override;
  void logprob_backward(View logits, double inverse_temperature, const Targets& targets, View lse, View entropy,
                        View dlogprobs, View dentropy, View dlogits) override;

  // sample.cu
  void sample(View logits, const SampleRow* rows, const TokenRules& rules, std::int32_t* tokens, View logprobs) override;

  // sum_squares.cu
  void sum_squares(View x, double* sum) override;
  void clip_norm(const double* squares, std::int64_t count, double max_norm, double* scale) override;

  // adamw.cu, average.cu
  void adamw(View master, View m, View v, View gradient, const AdamW& options) override;
  void average(View average, View x, double tau) override;

 private:
  /// Device memory for the operation under way; grows when asked for more. Contents are lost.
  void* scratch(std::size_t bytes);

  /// total (1, cols) += the rows of parts (count, cols), in order; float32.
  void add_parts(const float* parts, std::int64_t count, std::int64_t cols, View total);

  void multiply(const Product& product);

  std::unique_ptr<Device> device_;
  DType dtype_;
  std::unique_ptr<MatmulLibrary> library_;  // null: products are our own kernels'
  std::unique_ptr<Recordings> recordings_;  // null: FORETOKEN_CUDA_GRAPHS is 0
  bool warpgroup_attention_ = false;        // for bfloat16, where the head's size has such kernels
  void* scratch_ = nullptr;
  std::size_t scratch_bytes_ = 0;
};

}  // namespace foretoken::cuda
