#pragma once

#include "node/napi_setup.h"

namespace foretoken {

/// Puts the engine's functions on the addon's exports; lib/engine/native-engine.ts declares their types.
void export_calls(Napi::Env env, Napi::Object exports);

}  // namespace foretoken
