#include "core/error.h"

namespace foretoken {

const char* error_code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::InvalidArgument: return "INVALID_ARGUMENT";
    case ErrorCode::InvalidConfig: return "INVALID_CONFIG";
    case ErrorCode::UnsupportedConfig: return "UNSUPPORTED_CONFIG";
    case ErrorCode::InvalidCheckpoint: return "INVALID_CHECKPOINT";
    case ErrorCode::Io: return "IO";
    case ErrorCode::OutOfMemory: return "OUT_OF_MEMORY";
    case ErrorCode::Aborted: return "ABORTED";
    case ErrorCode::Disposed: return "DISPOSED";
    case ErrorCode::NonFinite: return "NON_FINITE";
    case ErrorCode::DeviceUnavailable: return "DEVICE_UNAVAILABLE";
    case ErrorCode::Internal: return "INTERNAL";
  }
  return "INTERNAL";
}

}  // namespace foretoken
