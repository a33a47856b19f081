#include "engine/memory.h"

#include <algorithm>

#include "core/error.h"

namespace foretoken {

namespace {

std::string megabytes(std::size_t bytes) { return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MB"; }

}  // namespace

void MemoryBudget::hold(const std::string& purpose, std::size_t bytes) {
  const auto fits = [&] { return bytes <= limit_ && beside(purpose) <= limit_ - bytes; };
  if (!fits()) give_back_();
  if (!fits()) {
    const std::size_t others = beside(purpose);
    std::string list;
    for (const auto& [name, value] : held_)
      if (name != purpose && value > 0) list += (list.empty() ? "" : ", ") + name + " " + megabytes(value);
    fail(ErrorCode::OutOfMemory, purpose, " would take ", megabytes(bytes), ", but ", megabytes(limit_ - std::min(limit_, others)),
         " of ", megabytes(limit_), " are left", list.empty() ? "" : " beside " + list,
         ". What helps: a smaller batchTokens, recompute, a smaller cacheTokens or maxSequences, dtype bfloat16, "
         "stateDtype bfloat16, or a higher memoryLimit");
  }
  held_[purpose] = bytes;
}

std::size_t MemoryBudget::beside(const std::string& purpose) const {
  const auto found = held_.find(purpose);
  return held() - (found == held_.end() ? 0 : found->second);
}

std::size_t MemoryBudget::held() const {
  std::size_t sum = 0;
  for (const auto& [name, value] : held_) sum += value;
  return sum;
}

void* WorkMemory::reserve(std::size_t bytes) {
  if (bytes > buffer_.bytes()) {
    release();
    budget_.hold(kWorkPurpose, bytes);
    buffer_ = Buffer(backend_, bytes);
  }
  return buffer_.data();
}

void WorkMemory::release() {
  buffer_ = Buffer();
  budget_.hold(kWorkPurpose, 0);
}

}  // namespace foretoken
