#pragma once

#include <memory>
#include <string>

#include "backend/backend.h"

namespace foretoken {

/// The CUDA backend of the library at `path`, on GPU `index` or, where that is negative, the first that can be used.
/// Throws DeviceUnavailable with the reason. The library stays open for the life of the process: the CUDA runtime in it
/// does not survive being closed.
std::unique_ptr<Backend> make_cuda_backend(const std::string& path, int index, DType dtype, bool allow_tf32 = false);

}  // namespace foretoken
