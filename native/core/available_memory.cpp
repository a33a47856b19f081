#include "core/available_memory.h"

#include <algorithm>
#include <cstdio>
#include <limits>

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

}  // namespace foretoken
