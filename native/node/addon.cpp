#include <string>

#include "node/calls.h"
#include "node/engine_handle.h"
#include "node/machine.h"
#include "node/napi_setup.h"
#include "node/probe_cuda.h"

namespace {

void on_exit(const Napi::CallbackInfo& info) { foretoken::EngineHandle::close_all(info.Env()); }

/// The URL of the addon's file, which the child process that probes CUDA libraries loads it from.
std::string file_of_addon(Napi::Env env) {
  const char* url = nullptr;
  if (node_api_get_module_file_name(env, &url) != napi_ok || url == nullptr) return {};
  return url;
}

// State belongs to the environment, never to the process: the addon may be loaded in any number of worker threads.
Napi::Object init(Napi::Env env, Napi::Object exports) {
  foretoken::EngineHandle::initialise(env);
  foretoken::export_calls(env, exports);
  foretoken::export_machine(env, exports);
  foretoken::export_probe_cuda(env, exports);
  const auto process = env.Global().Get("process").As<Napi::Object>();
  process.Get("on").As<Napi::Function>().Call(
      process, {Napi::String::New(env, "exit"), Napi::Function::New<on_exit>(env, "closeForetokenEngines")});
  exports.Set("version", FORETOKEN_VERSION);
  exports.Set("file", file_of_addon(env));
  exports.Set("napiVersion", Napi::VersionManagement::GetNapiVersion(env));
  return exports;
}

}  // namespace

NODE_API_MODULE(foretoken, init)
