#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace foretoken {

/// What went wrong, as a stable name; lib/engine/errors.ts lists the same names.
enum class ErrorCode {
  InvalidArgument,     // the caller's mistake: wrong shape, range, type
  InvalidConfig,       // config.json is malformed or contradicts itself
  UnsupportedConfig,   // a field or architecture this build does not implement
  InvalidCheckpoint,   // safetensors, index or training state is malformed or does not fit the config
  Io,                  // the operating system refused: open, read, write, map, rename
  OutOfMemory,         // the plan does not fit; the message has the numbers and what would help
  Aborted,             // an AbortSignal fired
  Disposed,            // the engine is gone
  NonFinite,           // NaN or infinity where a number must be; the message names the tensor
  DeviceUnavailable,   // no such device, driver or instruction set
  Internal,            // a broken invariant: always a bug
};

/// The name that JavaScript sees as `error.code`, such as "INVALID_ARGUMENT".
const char* error_code_name(ErrorCode code);

/// The one exception of the core: a sentence that names the culprit and the remedy.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const { return code_; }

 private:
  ErrorCode code_;
};

/// Throws `Error(code, …)` with the parts put together as text.
template <typename... Parts>
[[noreturn]] void fail(ErrorCode code, const Parts&... parts);

namespace detail {
inline void append(std::string& text, const char* part) { text += part; }
inline void append(std::string& text, const std::string& part) { text += part; }
inline void append(std::string& text, char part) { text += part; }
template <typename Number>
void append(std::string& text, Number part) { text += std::to_string(part); }
}  // namespace detail

template <typename... Parts>
[[noreturn]] void fail(ErrorCode code, const Parts&... parts) {
  std::string text;
  (detail::append(text, parts), ...);
  throw Error(code, text);
}

/// Guards an invariant of the core itself; a failure is a bug and becomes an `Internal` error, never an abort.
inline void invariant(bool holds, const char* what) {
  if (!holds) fail(ErrorCode::Internal, "internal error: ", what);
}

}  // namespace foretoken
