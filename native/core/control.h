#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

#include "core/error.h"

namespace foretoken {

/// Lets a caller watch and stop a long call; both members may be empty.
struct Control {
  const std::atomic<bool>* aborted = nullptr;
  std::function<void(std::int64_t done, std::int64_t total)> progress;  // tokens; called on the engine's thread

  void check() const {
    if (aborted && aborted->load(std::memory_order_relaxed)) fail(ErrorCode::Aborted, "the call was aborted");
  }
  void report(std::int64_t done, std::int64_t total) const { if (progress) progress(done, total); }
};

}  // namespace foretoken
