#include "node/calls.h"
#include "node/napi_setup.h"

namespace {

// All state hangs on the handles, none on the addon: it may be loaded in any number of worker threads.
Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("version", FORETOKEN_VERSION);
  exports.Set("napiVersion", Napi::VersionManagement::GetNapiVersion(env));
  foretoken::export_calls(env, exports);
  return exports;
}

}  // namespace

NODE_API_MODULE(foretoken, init)
