#include "forest/token_forest.h"

#include <algorithm>
#include <limits>

#include "core/error.h"

namespace foretoken {

std::int32_t TokenForest::add(std::int32_t parent, std::span<const std::int32_t> tokens) {
  const auto count = static_cast<std::int32_t>(segments_.size());
  if (parent < -1 || parent >= count)
    fail(ErrorCode::InvalidArgument, "parent segment ", parent, " does not exist: the forest has ", count, " segments");
  if (tokens.empty()) fail(ErrorCode::InvalidArgument, "a segment needs at least one token");
  const std::int64_t start = parent < 0 ? 0 : std::int64_t{segments_[parent].start_position} + segments_[parent].length;
  if (start + static_cast<std::int64_t>(tokens.size()) > std::numeric_limits<std::int32_t>::max())
    fail(ErrorCode::InvalidArgument, "a path of the forest would be longer than 2^31 tokens");
  segments_.push_back({parent, size(), static_cast<std::int32_t>(tokens.size()), static_cast<std::int32_t>(start)});
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  return count;
}

std::int32_t TokenForest::segment_of(std::int64_t index) const {
  const auto after = std::upper_bound(segments_.begin(), segments_.end(), index,
                                      [](std::int64_t value, const Segment& segment) { return value < segment.begin; });
  return static_cast<std::int32_t>(after - segments_.begin()) - 1;
}

void TokenForest::validate(std::int64_t vocabulary, std::int64_t longest_path) const {
  for (std::size_t s = 0; s < segments_.size(); ++s) {
    const Segment& segment = segments_[s];
    const std::int64_t end = std::int64_t{segment.start_position} + segment.length;
    if (end > longest_path)
      fail(ErrorCode::InvalidArgument, "segment ", s, " ends at position ", end, ", beyond the model's ", longest_path);
    for (std::int64_t i = segment.begin; i < segment.begin + segment.length; ++i)
      if (tokens_[i] < 0 || tokens_[i] >= vocabulary)
        fail(ErrorCode::InvalidArgument, "token ", tokens_[i], " at index ", i - segment.begin, " of segment ", s,
             " is outside the vocabulary of ", vocabulary);
  }
}

}  // namespace foretoken
