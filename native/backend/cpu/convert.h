#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace foretoken::cpu {

using ConvertRow = void (*)(const void* from, void* to, std::int64_t count);

/// What rounds `count` numbers to nearest even from one dtype to another, one by one: for the pairs that no vector
/// kernel serves because they are not worth one.
ConvertRow converter(DType from, DType to);

}  // namespace foretoken::cpu
