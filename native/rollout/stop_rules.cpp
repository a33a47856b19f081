#include "rollout/stop_rules.h"

#include <algorithm>

#include "core/error.h"

namespace foretoken {

StopMatcher::StopMatcher(const StopRules& rules, std::span<const std::uint8_t> bytes, std::span<const std::int64_t> offsets)
    : texts_(rules.texts), bytes_(bytes), offsets_(offsets) {
  for (const std::int32_t token : rules.tokens) {
    if (token < 0) fail(ErrorCode::InvalidArgument, "stop token ", token, " is negative");
    if (static_cast<std::size_t>(token) >= stops_.size()) stops_.resize(static_cast<std::size_t>(token) + 1);
    stops_[token] = true;
  }
  for (const std::string& text : texts_) {
    if (text.empty()) fail(ErrorCode::InvalidArgument, "a stop text is empty: it would end every rollout at once");
    longest_ = std::max(longest_, text.size());
  }
  if (!texts_.empty() && offsets_.empty())
    fail(ErrorCode::InvalidArgument, "stop texts need the bytes of each token: call setTokenBytes() first");
}

std::optional<StopReason> StopMatcher::append(std::int32_t token, Tail& tail) const {
  if (static_cast<std::size_t>(token) < stops_.size() && stops_[token]) return StopReason::Token;
  if (texts_.empty()) return std::nullopt;
  const std::size_t before = tail.size();
  if (static_cast<std::size_t>(token) + 1 < offsets_.size())  // ids beyond the table (padding of the vocabulary) have no bytes
    tail.append(reinterpret_cast<const char*>(bytes_.data()) + offsets_[token],
                static_cast<std::size_t>(offsets_[token + 1] - offsets_[token]));
  for (const std::string& text : texts_) {
    // A new occurrence ends in the new bytes, so it begins at most its length minus one before them.
    const std::size_t from = before < text.size() ? 0 : before - text.size() + 1;
    if (tail.find(text, from) != std::string::npos) return StopReason::Text;
  }
  if (tail.size() >= longest_) tail.erase(0, tail.size() - longest_ + 1);
  return std::nullopt;
}

}  // namespace foretoken
