#pragma once

#include <cstdint>
#include <vector>

#include "forest/packed_batch.h"
#include "model/kept_activations.h"

namespace foretoken {

/// What sampling has kept for a micro-batch.
struct KeptRows {
  std::vector<std::int32_t> rows;    // (N) of KeptActivations; empty where one is missing that takes part in a result
  std::vector<std::int32_t> logits;  // (head rows) where their logits are; empty where any are missing
};

/// `row_of_token` is KeptActivations::rows_of the forest that the micro-batch was cut from.
KeptRows find_kept(const KeptActivations& kept, const std::vector<std::int32_t>& row_of_token, const PackedBatch& packed);

}  // namespace foretoken
