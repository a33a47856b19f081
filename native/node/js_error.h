#pragma once

#include "node/failure.h"
#include "node/napi_setup.h"

namespace foretoken {

/// A JavaScript Error with the core's `code`; lib/engine/ makes a ForetokenError of it.
Napi::Error to_js_error(Napi::Env env, const Failure& failure);

}  // namespace foretoken
