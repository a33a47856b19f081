#include "node/js_error.h"

namespace foretoken {

Napi::Error to_js_error(Napi::Env env, const Failure& failure) {
  Napi::Error error = Napi::Error::New(env, failure.message.empty() ? "out of memory" : failure.message);
  error.Set("code", Napi::String::New(env, error_code_name(failure.code)));
  return error;
}

}  // namespace foretoken
