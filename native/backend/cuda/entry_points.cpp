#include <cstdio>
#include <exception>
#include <new>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/interface.h"
#include "core/error.h"

// What libforetoken_cuda.so exports. The same file over emulated devices makes the library that tests open.
namespace foretoken::cuda {

namespace {

void describe(Failure* failure, ErrorCode code, const char* text) {
  failure->code = static_cast<int>(code);
  std::snprintf(failure->text, sizeof failure->text, "%s", text);
}

/// What body() gives; where it throws, the failure is described and the result is empty.
template <typename Body>
auto guarded(Failure* failure, const Body& body) noexcept -> decltype(body()) {
  using Result = decltype(body());
  failure->code = Failure::kNone;
  try {
    return body();
  } catch (const Error& error) {
    describe(failure, error.code(), error.what());
  } catch (const std::bad_alloc&) {
    describe(failure, ErrorCode::OutOfMemory, "the operating system refused memory for the CUDA library's own tables");
  } catch (const std::exception& error) {
    describe(failure, ErrorCode::Internal, error.what());
  } catch (...) {
    describe(failure, ErrorCode::Internal, "the CUDA library threw something that is no exception");
  }
  if constexpr (!std::is_void_v<Result>) return Result();
}

/// The function that stands for a method.
template <auto method, typename Method = decltype(method)>
struct Entry;
template <auto method, typename R, typename... A>
struct Entry<method, R (Backend::*)(A...)> {
  static R call(Backend* backend, Failure* failure, A... arguments) noexcept {
    return guarded(failure, [&]() -> R { return (backend->*method)(static_cast<A>(arguments)...); });
  }
};
template <auto method, typename R, typename... A>
struct Entry<method, R (Backend::*)(A...) const> : Entry<method, R (Backend::*)(A...)> {};
template <auto method, typename R, typename... A>
struct Entry<method, R (Backend::*)(A...) noexcept> : Entry<method, R (Backend::*)(A...)> {};

void copy_text(const std::string& from, char* text, std::size_t size) { std::snprintf(text, size, "%s", from.c_str()); }

constexpr Operations kOperations = {
    .destroy = [](Backend* backend) { delete backend; },
    .name = [](Backend* backend, char* text, std::size_t size) { copy_text(backend->name(), text, size); },
    .description =
        [](Backend* backend, Failure* failure, char* text, std::size_t size) {
          guarded(failure, [&] { copy_text(backend->description(), text, size); });
        },
    .make_weight =
        [](Backend* backend, Failure* failure, std::int64_t outputs, std::int64_t inputs, bool trainable) {
          return guarded(failure, [&] { return backend->make_weight(outputs, inputs, trainable).release(); });
        },
    .bytes_of_weight = [](const Weight* weight) { return weight->bytes(); },
    .destroy_weight = [](Weight* weight) { delete weight; },
#define FORETOKEN_CUDA_ENTRY(method) .method = &Entry<&Backend::method>::call,
    FORETOKEN_CUDA_OPERATIONS(FORETOKEN_CUDA_ENTRY)
#undef FORETOKEN_CUDA_ENTRY
};

}  // namespace

}  // namespace foretoken::cuda

#define FORETOKEN_EXPORT extern "C" __attribute__((visibility("default")))

FORETOKEN_EXPORT int foretoken_cuda_abi_version() { return foretoken::cuda::kAbiVersion; }

FORETOKEN_EXPORT int foretoken_cuda_probe(char* reason, std::size_t size) {
  using namespace foretoken::cuda;
  Failure failure;
  const int devices = guarded(&failure, [&] {
    const DeviceSurvey survey = survey_devices(kAllDevices);
    copy_text(survey.text, reason, size);
    return static_cast<int>(survey.usable.size());
  });
  if (failure.code != Failure::kNone) copy_text(failure.text, reason, size);
  return devices;
}

FORETOKEN_EXPORT const foretoken::cuda::Operations* foretoken_cuda_create(int index, foretoken::DType dtype, bool allow_tf32,
                                                                          std::size_t operations_bytes,
                                                                          foretoken::Backend** made,
                                                                          foretoken::cuda::Failure* failure) {
  using namespace foretoken;
  using namespace foretoken::cuda;
  return guarded(failure, [&]() -> const Operations* {
    invariant(operations_bytes == sizeof(Operations), "the CUDA library belongs to another version of foretoken");
    *made = new CudaBackend(make_device(index < 0 ? kFirstUsableDevice : index), dtype, allow_tf32);
    return &kOperations;
  });
}
