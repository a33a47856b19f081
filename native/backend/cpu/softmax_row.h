#pragma once

#include "backend/cpu/kernels/kernels.h"

namespace foretoken::cpu {

/// The log-prob of a token under the row's tempered softmax; scoring and sampling share it, and so its bits.
inline float logprob_of(const RowStatistics& row, float logit, float inverse_temperature) {
  return (logit * inverse_temperature - row.max) - row.log_sum;
}

}  // namespace foretoken::cpu
