#include "node/probe_cuda.h"

#include <cstddef>
#include <string>

#ifndef _WIN32
#include <dlfcn.h>
#endif

#include "backend/cuda/interface.h"
#include "node/arguments.h"
#include "node/failure.h"
#include "node/js_error.h"

namespace foretoken {

namespace {

/// What a library answered; backend/cuda/interface.h says what it is asked.
struct Answer {
  bool ok = false;
  std::string reason;
  int devices = 0;
};

#ifdef _WIN32

Answer ask(const std::string&) { return {false, "there is no CUDA library for Windows", 0}; }

#else

Answer refuse(std::string reason) { return {false, std::move(reason), 0}; }

Answer ask(const std::string& path) {
  // Never closed: the CUDA runtime does not survive that, and the process that asks has nothing else to do.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return refuse(dlerror());
  const auto abi_version = reinterpret_cast<int (*)()>(dlsym(library, "foretoken_cuda_abi_version"));
  const auto probe = reinterpret_cast<int (*)(char*, std::size_t)>(dlsym(library, "foretoken_cuda_probe"));
  if (abi_version == nullptr || probe == nullptr)
    return refuse(path + " is not foretoken's CUDA library: it has no foretoken_cuda_probe");
  if (const int version = abi_version(); version != cuda::kAbiVersion)
    return refuse(path + " belongs to another version of foretoken (interface " + std::to_string(version) + ", wanted " +
                  std::to_string(cuda::kAbiVersion) + "); install the same version of both");
  char reason[4096] = {};
  const int devices = probe(reason, sizeof reason);
  reason[sizeof reason - 1] = '\0';
  if (devices > 0) return {true, reason, devices};
  return refuse(reason[0] != '\0' ? reason : "the CUDA library found no device");
}

#endif

Napi::Value probe_cuda(const Napi::CallbackInfo& info) {
  try {
    const Answer answer = ask(read_string(info[0], "path"));
    auto object = Napi::Object::New(info.Env());
    object.Set("ok", answer.ok);
    object.Set("reason", answer.reason);
    object.Set("devices", answer.devices);
    return object;
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    throw to_js_error(info.Env(), current_failure());
  }
}

}  // namespace

void export_probe_cuda(Napi::Env env, Napi::Object exports) {
  exports.Set("probeCuda", Napi::Function::New<probe_cuda>(env, "probeCuda"));
}

}  // namespace foretoken
