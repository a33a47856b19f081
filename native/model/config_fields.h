#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "core/json.h"

namespace foretoken {

/// Typed, range-checked access to the members of a config object that remembers what was asked for, so that a member
/// nobody asked for can be refused by name. A null member counts as absent. Wrong types and ranges are InvalidConfig.
class ConfigFields {
 public:
  /// `prefix` stands before names in messages, such as "rope_scaling.". `value` must be an object and outlive this.
  ConfigFields(const json::Value& value, std::string source, std::string prefix = "");

  /// The member, or null where it is absent or null.
  const json::Value* find(std::string_view key);
  /// Whether the member is there, be it null.
  bool has(std::string_view key) const;

  std::int64_t integer(std::string_view key, std::int64_t low, std::int64_t high,
                       std::optional<std::int64_t> fallback = std::nullopt);
  /// A number in [low, high].
  double number(std::string_view key, double low, double high, std::optional<double> fallback = std::nullopt);
  bool boolean(std::string_view key, bool fallback);
  std::string text(std::string_view key, std::optional<std::string> fallback = std::nullopt);

  /// Takes note of members that change nothing here.
  template <typename Keys>
  void ignore(const Keys& keys) {
    for (const char* key : keys) known_.insert(key);
  }

  /// Refuses any value but `expected` (or absence).
  void expect(std::string_view key, const json::Value& expected, const char* reason);

  /// Refuses members that were never asked for.
  void refuse_unknown() const;

  [[noreturn]] void invalid(std::string_view key, const std::string& what) const;
  [[noreturn]] void unsupported(std::string_view key, const std::string& what) const;
  const std::string& source() const { return source_; }

 private:
  const json::Value* require(std::string_view key, bool has_fallback);

  const json::Value& value_;
  std::string source_;
  std::string prefix_;
  std::set<std::string, std::less<>> known_;
};

}  // namespace foretoken
