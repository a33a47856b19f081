#pragma once

#include <cstdint>
#include <vector>

#include "core/error.h"

namespace foretoken {

/// The free pages of the key/value store. Numbers are handed out from low to high, so a run repeats itself.
class PagePool {
 public:
  explicit PagePool(std::int64_t pages) : total_(pages) {
    free_.reserve(static_cast<std::size_t>(pages));
    for (std::int64_t page = pages; page-- > 0;) free_.push_back(static_cast<std::int32_t>(page));
  }

  std::int64_t total() const { return total_; }
  std::int64_t available() const { return static_cast<std::int64_t>(free_.size()); }

  std::int32_t take() {
    invariant(!free_.empty(), "a page is taken only when one is free");
    const std::int32_t page = free_.back();
    free_.pop_back();
    return page;
  }
  void give_back(std::int32_t page) { free_.push_back(page); }

 private:
  std::int64_t total_;
  std::vector<std::int32_t> free_;
};

}  // namespace foretoken
