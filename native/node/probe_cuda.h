#pragma once

#include "node/napi_setup.h"

namespace foretoken {

/// Adds `probeCuda(path)` to the addon: opens the library and asks it. Synchronous, and whatever the library does to the
/// process it does here: lib/engine/cuda-probe.ts calls it in a process of its own.
void export_probe_cuda(Napi::Env env, Napi::Object exports);

}  // namespace foretoken
