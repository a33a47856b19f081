#pragma once

namespace foretoken {

/// Which of an engine's weights a forward pass uses.
enum class WeightsKind { Current, Reference, Average };

}  // namespace foretoken
