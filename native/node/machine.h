#pragma once

#include "node/napi_setup.h"

namespace foretoken {

/// Adds what `foretoken doctor` and `foretoken bench` ask about this machine:
/// `machine()` gives the instruction set in use, those available, threads and available memory (bytes);
/// `productSpeed(dtype, threads)` measures for about a second, synchronously, and gives FLOP/s.
void export_machine(Napi::Env env, Napi::Object exports);

}  // namespace foretoken
