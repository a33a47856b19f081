#pragma once

#include <string>
#include <vector>

#include "backend/cuda/cublaslt_api.h"

namespace foretoken::cuda::cublaslt {

/// File names to open, in the order of trying; those without a folder are for the linker to find.
std::vector<std::string> candidates();

/// Opens a file of candidates() and finds all functions in it; false when there is none or a function is missing.
/// The library stays loaded for the rest of the process, as its threads and the driver may still refer to it.
bool load(const std::string& file, Functions& functions);

}  // namespace foretoken::cuda::cublaslt
