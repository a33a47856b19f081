#pragma once

#include <string>

#include "core/error.h"

namespace foretoken {

/// An exception as data, to be carried from the engine's thread to JavaScript's.
struct Failure {
  ErrorCode code = ErrorCode::Internal;
  std::string message;
};

/// What the exception that is being handled says; call it inside a catch block only. Does not throw.
Failure current_failure() noexcept;

}  // namespace foretoken
