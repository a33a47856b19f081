#pragma once

#include <cstdlib>
#include <optional>
#include <string>

#include "test/engine/tiny_models.h"

namespace foretoken::test {

/// The library with the CUDA backend's kernels over two emulated devices (native/backend/cuda/build.cmake), or the one
/// that FORETOKEN_TEST_CUDA names, which has a GPU (scripts/gpu-check.sh).
inline const char* emulated_library() {
  const char* real = std::getenv("FORETOKEN_TEST_CUDA");
  return real ? real : FORETOKEN_EMULATED_CUDA_LIBRARY;
}

inline EngineOptions emulated(DType dtype = DType::Float32, const char* device = "cuda") {
  EngineOptions options;
  options.device = device;
  options.cuda_library = emulated_library();
  options.dtype = dtype;
  return options;
}

/// Fibers are slow under AddressSanitizer: there a test of many cases takes some of them.
#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

/// An environment variable for as long as this lives.
class EnvironmentVariable {
 public:
  EnvironmentVariable(const char* name, const char* value) : name_(name) {
    if (const char* before = std::getenv(name)) before_ = before;
    setenv(name, value, 1);
  }
  EnvironmentVariable(const EnvironmentVariable&) = delete;
  ~EnvironmentVariable() {
    if (before_) setenv(name_, before_->c_str(), 1);
    else unsetenv(name_);
  }

 private:
  const char* name_;
  std::optional<std::string> before_;
};

}  // namespace foretoken::test
