#include "node/failure.h"

#include <exception>
#include <new>

namespace foretoken {

namespace {

Failure translate() {
  try {
    throw;
  } catch (const Error& error) {
    return {error.code(), error.what()};
  } catch (const std::bad_alloc&) {
    return {ErrorCode::OutOfMemory, "the system refused memory for this call; use a smaller batch, a smaller model or "
                                    "recompute, or give the process more memory"};
  } catch (const std::exception& error) {
    return {ErrorCode::Internal, std::string("internal error: ") + error.what()};
  } catch (...) {
    return {ErrorCode::Internal, "internal error: an unknown native exception"};
  }
}

}  // namespace

Failure current_failure() noexcept {
  try {
    return translate();
  } catch (...) {
    // Not even the message could be allocated.
    return {ErrorCode::OutOfMemory, {}};
  }
}

}  // namespace foretoken
