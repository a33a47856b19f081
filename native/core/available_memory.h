#pragma once

#include <cstddef>

namespace foretoken {

/// What the machine can give: physical memory available now, capped by the cgroup.
std::size_t available_memory();

}  // namespace foretoken
