#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "core/available_memory.h"

namespace foretoken {

/// Purposes that are named in several places.
constexpr const char* kWorkPurpose = "activations and key/value store";
constexpr const char* kKeptPurpose = "kept activations";

/// Keeps account of what is held for which purpose and refuses, with numbers, what would not fit.
class MemoryBudget {
 public:
  /// `give_back` is asked for what is not needed before anything is refused.
  MemoryBudget(std::size_t limit, std::function<void()> give_back) : limit_(limit), give_back_(std::move(give_back)) {}

  /// Records that `purpose` will hold `bytes` (instead of what it held). Throws OutOfMemory before anything is allocated.
  void hold(const std::string& purpose, std::size_t bytes);
  std::size_t held() const;
  std::size_t limit() const { return limit_; }
  const std::map<std::string, std::size_t>& purposes() const { return held_; }

 private:
  std::size_t beside(const std::string& purpose) const;

  std::size_t limit_;
  std::function<void()> give_back_;
  std::map<std::string, std::size_t> held_;
};

/// One block that activations, logits and the key/value store of successive calls share: they never live at once.
class WorkMemory {
 public:
  WorkMemory(Backend& backend, MemoryBudget& budget) : backend_(backend), budget_(budget) {}

  /// A block of at least `bytes`, not cleared; what it held before is lost.
  void* reserve(std::size_t bytes);
  void release();
  std::size_t bytes() const { return buffer_.bytes(); }

 private:
  Backend& backend_;
  MemoryBudget& budget_;
  Buffer buffer_;
};

}  // namespace foretoken
