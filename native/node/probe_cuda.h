#pragma once

#include "node/napi_setup.h"

namespace foretoken {

// What a CUDA library (libforetoken_cuda.so) is asked before it is used; C, so that its C++ runtime is its own affair:
//
//   int foretoken_cuda_abi_version(void);
//     kCudaAbiVersion, or the library belongs to another version of foretoken.
//   int foretoken_cuda_probe(char* reason, size_t size);
//     The number of devices that can be used. `reason` then holds a line per device (its name and memory); where the
//     answer is 0 or less, it holds the sentence that says why and what to do. Always ends with '\0' within `size`.

/// Adds `probeCuda(path)` to the addon: opens the library and asks it. Synchronous, and whatever the library does to the
/// process it does here: lib/engine/cuda-probe.ts calls it in a process of its own.
void export_probe_cuda(Napi::Env env, Napi::Object exports);

}  // namespace foretoken
