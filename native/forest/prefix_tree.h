#pragma once

#include <cstdint>
#include <unordered_map>

namespace foretoken {

/// Tokens by the path that leads to them, each with a number of the caller's: equal prefixes share their entries.
class PrefixTree {
 public:
  static constexpr std::int32_t kRoot = -1;    // before the first token of a path
  static constexpr std::int32_t kAbsent = -2;  // where a path is not in the tree

  /// The number of `token` after the one numbered `parent`, or kAbsent.
  std::int32_t find(std::int32_t parent, std::int32_t token) const {
    if (parent == kAbsent) return kAbsent;
    const auto found = entries_.find(key(parent, token));
    return found == entries_.end() ? kAbsent : found->second;
  }
  /// The same after adding it as `number` where it was not there.
  std::int32_t add(std::int32_t parent, std::int32_t token, std::int32_t number) {
    return parent == kAbsent ? kAbsent : entries_.try_emplace(key(parent, token), number).first->second;
  }
  void clear() { entries_.clear(); }
  bool empty() const { return entries_.empty(); }

 private:
  static std::uint64_t key(std::int32_t parent, std::int32_t token) {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(parent)) << 32 | static_cast<std::uint32_t>(token);
  }
  std::unordered_map<std::uint64_t, std::int32_t> entries_;
};

}  // namespace foretoken
