#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "rollout/sampling_types.h"

namespace foretoken {

/// Tells when a rollout is complete: by its last token, or by a text that its bytes end up containing.
class StopMatcher {
 public:
  /// `bytes` and `offsets` are the token table; texts without a table are refused.
  StopMatcher(const StopRules& rules, std::span<const std::uint8_t> bytes, std::span<const std::int64_t> offsets);

  /// The end of a rollout's bytes, as long as a stop text could still need.
  using Tail = std::string;

  /// Takes the next token into the tail; answers why the rollout ends with it, if it does.
  std::optional<StopReason> append(std::int32_t token, Tail& tail) const;

 private:
  std::vector<bool> stops_;               // by token id
  std::vector<std::string> texts_;
  std::size_t longest_ = 0;               // bytes of the longest text
  std::span<const std::uint8_t> bytes_;
  std::span<const std::int64_t> offsets_;
};

}  // namespace foretoken
