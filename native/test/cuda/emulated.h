#pragma once

#include "test/engine/tiny_models.h"

namespace foretoken::test {

/// The library with the CUDA backend's kernels over two emulated devices (native/backend/cuda/build.cmake).
inline const char* emulated_library() { return FORETOKEN_EMULATED_CUDA_LIBRARY; }

inline EngineOptions emulated(DType dtype = DType::Float32, const char* device = "cuda") {
  EngineOptions options;
  options.device = device;
  options.cuda_library = emulated_library();
  options.dtype = dtype;
  return options;
}

}  // namespace foretoken::test
