#include "engine/memory.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <limits>

#include "core/error.h"

namespace foretoken {

namespace {

/// The number in a one-line file such as memory.max, or no limit.
std::size_t number_in(const char* path) {
  std::size_t value = std::numeric_limits<std::size_t>::max();
  if (std::FILE* file = std::fopen(path, "re")) {
    unsigned long long number = 0;
    if (std::fscanf(file, "%llu", &number) == 1) value = static_cast<std::size_t>(number);
    std::fclose(file);
  }
  return value;
}

std::string megabytes(std::size_t bytes) { return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MB"; }

}  // namespace

std::size_t available_memory() {
  std::size_t available = std::numeric_limits<std::size_t>::max();
  if (std::FILE* file = std::fopen("/proc/meminfo", "re")) {
    char line[256];
    unsigned long long kilobytes = 0;
    while (std::fgets(line, sizeof line, file))
      if (std::sscanf(line, "MemAvailable: %llu kB", &kilobytes) == 1) available = static_cast<std::size_t>(kilobytes) << 10;
    std::fclose(file);
  }
  const std::size_t most = number_in("/sys/fs/cgroup/memory.max");
  if (most != std::numeric_limits<std::size_t>::max()) {
    const std::size_t used = number_in("/sys/fs/cgroup/memory.current");
    available = std::min(available, most - std::min(most, used));
  }
  return available;
}

void MemoryBudget::hold(const std::string& purpose, std::size_t bytes) {
  const auto found = held_.find(purpose);
  const std::size_t others = held() - (found == held_.end() ? 0 : found->second);
  if (bytes > limit_ || others > limit_ - bytes) {
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

std::size_t MemoryBudget::held() const {
  std::size_t sum = 0;
  for (const auto& [name, value] : held_) sum += value;
  return sum;
}

void* WorkMemory::reserve(std::size_t bytes) {
  if (bytes > buffer_.bytes()) {
    release();
    budget_.hold("activations and key/value store", bytes);
    buffer_ = Buffer(backend_, bytes);
  }
  return buffer_.data();
}

void WorkMemory::release() {
  buffer_ = Buffer();
  budget_.hold("activations and key/value store", 0);
}

}  // namespace foretoken
