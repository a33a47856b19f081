#pragma once

#include <string>

#include "backend/cpu/cpu_backend.h"
#include "backend/cuda_library.h"

namespace foretoken::bench {

/// The backend of a device by name: "cpu", or "cuda" and "cuda:1" by the library.
inline std::unique_ptr<Backend> open_device(const std::string& device, const std::string& library, DType dtype) {
  if (device == "cpu") return make_cpu_backend({.dtype = dtype});
  return make_cuda_backend(library, device == "cuda" ? -1 : std::stoi(device.substr(device.find(':') + 1)), dtype);
}

}  // namespace foretoken::bench
