#pragma once

#include "engine/engine.h"
#include "model/parameters.h"

namespace foretoken {

/// Fills a new parameter's values (elements): norms are 1, biases 0, matrices normal with the given deviation,
/// element e of parameter p drawn from Philox keyed by (seed, p, e) so that no value depends on the others.
void initialise(const ModelConfig& config, const ParameterSpec& spec, std::uint32_t stream,
                const Initialisation& initialisation, std::vector<float>& values);

}  // namespace foretoken
