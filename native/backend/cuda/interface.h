#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "backend/backend.h"

// The border between the addon and libforetoken_cuda.so, which are linked apart, each with a C++ runtime of its own. What
// crosses it is plain data: no exception, no std::string, nothing that one side allocates and the other frees. A class of
// backend.h crosses as a pointer that only the library follows. The exported functions are:
//
//   int foretoken_cuda_abi_version(void);
//     kAbiVersion, or the library belongs to another version of foretoken.
//   int foretoken_cuda_probe(char* reason, size_t size);
//     The number of devices that can be used. `reason` then holds a line per device; where the answer is 0 it holds the
//     sentence that says why and what to do. Always ends with '\0' within `size`.
//   const Operations* foretoken_cuda_create(int index, DType dtype, bool allow_tf32, size_t operations_bytes, Backend** made, Failure*);
//     A backend on device `index`, or on the first that can be used where that is negative.
namespace foretoken::cuda {

inline constexpr int kAbiVersion = 2;

/// Where a call that failed says so; the caller throws it again.
struct Failure {
  static constexpr int kNone = -1;
  int code;  // an ErrorCode, or kNone
  char text[2048];
};

/// A method of Backend as a function: the same parameters behind the object and the place for a failure.
template <typename Method>
struct Crossing;
template <typename R, typename... A>
struct Crossing<R (Backend::*)(A...)> {
  static_assert(std::is_void_v<R> || std::is_trivially_copyable_v<R>);
  static_assert(((std::is_reference_v<A> || std::is_trivially_copyable_v<A>) && ...), "only plain data may cross");
  using Function = R (*)(Backend*, Failure*, A...);
};
template <typename R, typename... A>
struct Crossing<R (Backend::*)(A...) const> : Crossing<R (Backend::*)(A...)> {};
template <typename R, typename... A>
struct Crossing<R (Backend::*)(A...) noexcept> : Crossing<R (Backend::*)(A...)> {};

// Every method that takes and gives plain data.
#define FORETOKEN_CUDA_OPERATIONS(EACH)                                                                              \
  EACH(allocate) EACH(release) EACH(upload) EACH(download) EACH(synchronize) EACH(scratch_bytes)                     \
  EACH(asynchronous) EACH(start_download) EACH(select_tokens) EACH(records) EACH(begin_sequence) EACH(end_sequence)  \
  EACH(available_memory) EACH(fill_zero) EACH(convert) EACH(embed_forward) EACH(embed_backward) EACH(norm_forward)   \
  EACH(norm_backward) EACH(weight_bytes) EACH(pack_weight) EACH(linear_forward) EACH(linear_backward_input)          \
  EACH(linear_backward_weight) EACH(scratch_bytes_for) EACH(bias_backward) EACH(rope_forward)                        \
  EACH(rope_backward) EACH(page_positions) EACH(page_bytes) EACH(cache_copy)                                         \
  EACH(attention_forward) EACH(attention_backward) EACH(swiglu_forward) EACH(swiglu_backward) EACH(gather_rows)      \
  EACH(scatter_add_rows) EACH(logprob_forward) EACH(logprob_backward) EACH(sample) EACH(sum_squares) EACH(clip_norm) \
  EACH(adamw) EACH(average)

/// The library's functions; lives as long as the library.
struct Operations {
  void (*destroy)(Backend*);
  void (*name)(Backend*, char* text, std::size_t size);
  void (*description)(Backend*, Failure*, char* text, std::size_t size);
  Weight* (*make_weight)(Backend*, Failure*, std::int64_t outputs, std::int64_t inputs, bool trainable);
  std::size_t (*bytes_of_weight)(const Weight*);
  void (*destroy_weight)(Weight*);
#define FORETOKEN_CUDA_FUNCTION(method) Crossing<decltype(&Backend::method)>::Function method;
  FORETOKEN_CUDA_OPERATIONS(FORETOKEN_CUDA_FUNCTION)
#undef FORETOKEN_CUDA_FUNCTION
};

using CreateFunction = const Operations* (*)(int index, DType dtype, bool allow_tf32, std::size_t operations_bytes,
                                             Backend** made, Failure*);

}  // namespace foretoken::cuda
