#include <napi.h>

namespace {

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("version", FORETOKEN_VERSION);
  exports.Set("napiVersion", Napi::VersionManagement::GetNapiVersion(env));
  return exports;
}

}  // namespace

NODE_API_MODULE(foretoken, init)
