#include "backend/cuda_library.h"

#ifndef _WIN32
#include <dlfcn.h>
#endif

#include "backend/cuda/interface.h"
#include "core/error.h"

namespace foretoken {

namespace {

using cuda::Failure;
using cuda::Operations;

/// Calls a function of the library and throws again what went wrong there.
template <typename R, typename... Parameters, typename... Arguments>
R cross(R (*function)(Backend*, Failure*, Parameters...), Backend* backend, Arguments&&... arguments) {
  Failure failure;
  failure.code = Failure::kNone;
  const auto rethrow = [&] {
    if (failure.code != Failure::kNone) throw Error(static_cast<ErrorCode>(failure.code), failure.text);
  };
  if constexpr (std::is_void_v<R>) {
    function(backend, &failure, static_cast<Arguments&&>(arguments)...);
    rethrow();
  } else {
    const R result = function(backend, &failure, static_cast<Arguments&&>(arguments)...);
    rethrow();
    return result;
  }
}

/// A weight that the library made.
class LibraryWeight final : public Weight {
 public:
  LibraryWeight(const Operations& operations, Weight* weight) : operations_(operations), weight_(weight) {}
  LibraryWeight(const LibraryWeight&) = delete;
  ~LibraryWeight() override { operations_.destroy_weight(weight_); }
  std::size_t bytes() const override { return operations_.bytes_of_weight(weight_); }
  Weight& inside() const { return *weight_; }

 private:
  const Operations& operations_;
  Weight* weight_;
};

Weight& inside(const Weight& weight) { return static_cast<const LibraryWeight&>(weight).inside(); }

/// Every operation is the library's function of the same name.
class LibraryBackend final : public Backend {
 public:
  LibraryBackend(const Operations& operations, Backend* backend, DType dtype)
      : operations_(operations), backend_(backend), dtype_(dtype) {}
  LibraryBackend(const LibraryBackend&) = delete;
  ~LibraryBackend() override { operations_.destroy(backend_); }

  std::string name() const override {
    char text[64];
    operations_.name(backend_, text, sizeof text);
    return text;
  }
  std::string description() const override {
    char text[1024];
    cross(operations_.description, backend_, text, sizeof text);
    return text;
  }
  DType activation_dtype() const override { return dtype_; }
  DType accumulation_dtype() const override { return DType::Float32; }

  void* allocate(std::size_t bytes) override { return cross(operations_.allocate, backend_, bytes); }
  void release(void* data) noexcept override {
    Failure ignored;  // a release cannot fail
    operations_.release(backend_, &ignored, data);
  }
  void upload(void* device, const void* host, std::size_t bytes) override {
    cross(operations_.upload, backend_, device, host, bytes);
  }
  void download(void* host, const void* device, std::size_t bytes) override {
    cross(operations_.download, backend_, host, device, bytes);
  }
  void synchronize() override { cross(operations_.synchronize, backend_); }
  bool asynchronous() const override { return cross(operations_.asynchronous, backend_); }
  void start_download(const void* device, std::size_t bytes) override {
    cross(operations_.start_download, backend_, device, bytes);
  }
  bool records() const override { return cross(operations_.records, backend_); }
  Sequence begin_sequence(std::uint64_t key) override { return cross(operations_.begin_sequence, backend_, key); }
  bool end_sequence(bool complete) override { return cross(operations_.end_sequence, backend_, complete); }
  std::size_t scratch_bytes() const override { return cross(operations_.scratch_bytes, backend_); }
  std::size_t scratch_bytes_for(const PassExtent& pass) const override {
    return cross(operations_.scratch_bytes_for, backend_, pass);
  }
  std::size_t available_memory() const override { return cross(operations_.available_memory, backend_); }
  void fill_zero(View x) override { cross(operations_.fill_zero, backend_, x); }
  void convert(View from, View to) override { cross(operations_.convert, backend_, from, to); }

  void embed_forward(const std::int32_t* tokens, View table, View x) override {
    cross(operations_.embed_forward, backend_, tokens, table, x);
  }
  void embed_backward(const std::int32_t* tokens, View dx, View dtable) override {
    cross(operations_.embed_backward, backend_, tokens, dx, dtable);
  }

  void norm_forward(View x, View weight, double epsilon, View y, View rstd) override {
    cross(operations_.norm_forward, backend_, x, weight, epsilon, y, rstd);
  }
  void norm_backward(View x, View weight, View rstd, View dy, View dx, View dx_t, View dweight) override {
    cross(operations_.norm_backward, backend_, x, weight, rstd, dy, dx, dx_t, dweight);
  }

  std::unique_ptr<Weight> make_weight(std::int64_t outputs, std::int64_t inputs, bool trainable) override {
    Weight* weight = cross(operations_.make_weight, backend_, outputs, inputs, trainable);
    return std::make_unique<LibraryWeight>(operations_, weight);
  }
  std::size_t weight_bytes(std::int64_t outputs, std::int64_t inputs, bool trainable) const override {
    return cross(operations_.weight_bytes, backend_, outputs, inputs, trainable);
  }
  void pack_weight(Weight& weight, View master) override {
    cross(operations_.pack_weight, backend_, inside(weight), master);
  }
  void linear_forward(View x, const Weight& weight, View bias, View residual, View y) override {
    cross(operations_.linear_forward, backend_, x, inside(weight), bias, residual, y);
  }
  void linear_backward_input(View dy, const Weight& weight, View dx, bool accumulate) override {
    cross(operations_.linear_backward_input, backend_, dy, inside(weight), dx, accumulate);
  }
  void linear_backward_weight(View dy, View x, View dweight) override {
    cross(operations_.linear_backward_weight, backend_, dy, x, dweight);
  }
  void bias_backward(View dy, View dbias) override { cross(operations_.bias_backward, backend_, dy, dbias); }

  void rope_forward(View qkv, View q_norm, View k_norm, double epsilon, const std::int32_t* positions, View rope,
                    const AttentionShape& shape, const CacheWrites& writes, void* pages, View q, View k) override {
    cross(operations_.rope_forward, backend_, qkv, q_norm, k_norm, epsilon, positions, rope, shape, writes, pages, q, k);
  }
  void rope_backward(View dq, View dk, View dv, View qkv, View q_norm, View k_norm, double epsilon,
                     const std::int32_t* positions, View rope, const AttentionShape& shape, View dqkv, View dq_norm,
                     View dk_norm) override {
    cross(operations_.rope_backward, backend_, dq, dk, dv, qkv, q_norm, k_norm, epsilon, positions, rope, shape, dqkv,
          dq_norm, dk_norm);
  }

  std::int64_t page_positions() const override { return cross(operations_.page_positions, backend_); }
  std::size_t page_bytes(const AttentionShape& shape) const override {
    return cross(operations_.page_bytes, backend_, shape);
  }
  void cache_copy(const std::int32_t* from, const std::int32_t* to, std::int64_t count, const AttentionShape& shape,
                  void* pages, std::int64_t layers, std::size_t layer_bytes) override {
    cross(operations_.cache_copy, backend_, from, to, count, shape, pages, layers, layer_bytes);
  }
  void attention_forward(View q, const void* pages, const PagedPaths& paths, const AttentionShape& shape, View out,
                         View lse) override {
    cross(operations_.attention_forward, backend_, q, pages, paths, shape, out, lse);
  }
  void attention_backward(View q, View k, View v, View out, View dout, View lse, const PackedPaths& paths,
                          const AttentionShape& shape, View dq, View dk, View dv) override {
    cross(operations_.attention_backward, backend_, q, k, v, out, dout, lse, paths, shape, dq, dk, dv);
  }

  void swiglu_forward(View gate_up, View h) override { cross(operations_.swiglu_forward, backend_, gate_up, h); }
  void swiglu_backward(View dh, View gate_up, View dgate_up) override {
    cross(operations_.swiglu_backward, backend_, dh, gate_up, dgate_up);
  }

  void gather_rows(View x, const std::int32_t* index, View y) override {
    cross(operations_.gather_rows, backend_, x, index, y);
  }
  void scatter_add_rows(View dy, const std::int32_t* index, View dx) override {
    cross(operations_.scatter_add_rows, backend_, dy, index, dx);
  }

  void select_tokens(const std::int32_t* given, const std::int32_t* drawn, const std::int32_t* from, std::int64_t count,
                     const TokenRules& rules, std::int32_t* tokens, Run* runs) override {
    cross(operations_.select_tokens, backend_, given, drawn, from, count, rules, tokens, runs);
  }

  void logprob_forward(View logits, double inverse_temperature, const Targets& targets, View logprobs, View lse,
                       View entropy, View top_entropy, std::int32_t top_k) override {
    cross(operations_.logprob_forward, backend_, logits, inverse_temperature, targets, logprobs, lse, entropy,
          top_entropy, top_k);
  }
  void logprob_backward(View logits, double inverse_temperature, const Targets& targets, View lse, View entropy,
                        View dlogprobs, View dentropy, View dlogits) override {
    cross(operations_.logprob_backward, backend_, logits, inverse_temperature, targets, lse, entropy, dlogprobs,
          dentropy, dlogits);
  }
  void sample(View logits, const SampleRow* rows, const TokenRules& rules, std::int32_t* tokens, View logprobs) override {
    cross(operations_.sample, backend_, logits, rows, rules, tokens, logprobs);
  }

  void sum_squares(View x, double* sum) override { cross(operations_.sum_squares, backend_, x, sum); }
  void clip_norm(const double* squares, std::int64_t count, double max_norm, double* scale) override {
    cross(operations_.clip_norm, backend_, squares, count, max_norm, scale);
  }
  void adamw(View master, View m, View v, View gradient, const AdamW& options) override {
    cross(operations_.adamw, backend_, master, m, v, gradient, options);
  }
  void average(View average, View x, double tau) override { cross(operations_.average, backend_, average, x, tau); }

 private:
  const Operations& operations_;
  Backend* backend_;  // the library's
  DType dtype_;
};

}  // namespace

#ifdef _WIN32

std::unique_ptr<Backend> make_cuda_backend(const std::string&, int, DType, bool) {
  fail(ErrorCode::DeviceUnavailable, "there is no CUDA library for Windows");
}

#else

std::unique_ptr<Backend> make_cuda_backend(const std::string& path, int index, DType dtype, bool allow_tf32) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) fail(ErrorCode::DeviceUnavailable, "the CUDA library cannot be opened: ", std::string(dlerror()));
  const auto version = reinterpret_cast<int (*)()>(dlsym(library, "foretoken_cuda_abi_version"));
  const auto create = reinterpret_cast<cuda::CreateFunction>(dlsym(library, "foretoken_cuda_create"));
  if (!version || !create)
    fail(ErrorCode::DeviceUnavailable, path, " is not foretoken's CUDA library: it has no foretoken_cuda_create");
  if (version() != cuda::kAbiVersion)
    fail(ErrorCode::DeviceUnavailable, path, " belongs to another version of foretoken (interface ", version(),
         ", wanted ", cuda::kAbiVersion, "); install the same version of both");
  Failure failure;
  Backend* backend = nullptr;
  const Operations* operations = create(index, dtype, allow_tf32, sizeof(Operations), &backend, &failure);
  if (!operations) throw Error(static_cast<ErrorCode>(failure.code), failure.text);
  return std::make_unique<LibraryBackend>(*operations, backend, dtype);
}

#endif

}  // namespace foretoken
