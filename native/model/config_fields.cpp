#include "model/config_fields.h"

#include <utility>

namespace foretoken {

namespace {

std::string shown(double value) { return json::write(value); }

/// A value as messages show it: short, and on one line.
std::string shown(const json::Value& value) {
  std::string text = json::write(value, false);
  if (text.size() > 60) text = std::string(value.kind());
  return text;
}

}  // namespace

ConfigFields::ConfigFields(const json::Value& value, std::string source, std::string prefix)
    : value_(value), source_(std::move(source)), prefix_(std::move(prefix)) {
  if (!value.as_object())
    fail(ErrorCode::InvalidConfig, source_, ": ", prefix_, " must be an object, not ", value.kind());
}

bool ConfigFields::has(std::string_view key) const { return value_.find(key) != nullptr; }

const json::Value* ConfigFields::find(std::string_view key) {
  known_.emplace(key);
  const json::Value* member = value_.find(key);
  return member && !member->is_null() ? member : nullptr;
}

const json::Value* ConfigFields::require(std::string_view key, bool has_fallback) {
  const json::Value* member = find(key);
  if (!member && !has_fallback) invalid(key, "is missing");
  return member;
}

std::int64_t ConfigFields::integer(std::string_view key, std::int64_t low, std::int64_t high,
                                   std::optional<std::int64_t> fallback) {
  const json::Value* member = require(key, fallback.has_value());
  if (!member) return *fallback;
  const json::Number* number = member->as_number();
  if (!number || !number->integer || *number->integer < low || *number->integer > high) {
    invalid(key, "is " + shown(*member) + "; it must be an integer from " + std::to_string(low) + " to " +
                     std::to_string(high));
  }
  return *number->integer;
}

double ConfigFields::number(std::string_view key, double low, double high, std::optional<double> fallback) {
  const json::Value* member = require(key, fallback.has_value());
  if (!member) return *fallback;
  const json::Number* number = member->as_number();
  if (!number || !(number->value >= low && number->value <= high)) {
    invalid(key, "is " + shown(*member) + "; it must be a number from " + shown(low) + " to " + shown(high));
  }
  return number->value;
}

bool ConfigFields::boolean(std::string_view key, bool fallback) {
  const json::Value* member = find(key);
  if (!member) return fallback;
  const bool* boolean = member->as_bool();
  if (!boolean) invalid(key, "is " + shown(*member) + "; it must be true or false");
  return *boolean;
}

std::string ConfigFields::text(std::string_view key, std::optional<std::string> fallback) {
  const json::Value* member = require(key, fallback.has_value());
  if (!member) return *fallback;
  const std::string* string = member->as_string();
  if (!string) invalid(key, "is " + shown(*member) + "; it must be a string");
  return *string;
}

void ConfigFields::expect(std::string_view key, const json::Value& expected, const char* reason) {
  const json::Value* member = find(key);
  if (!member) return;
  const json::Number* number = member->as_number();
  const json::Number* wanted = expected.as_number();
  const bool same = number && wanted ? number->value == wanted->value : *member == expected;  // 1 is 1.0
  if (!same) unsupported(key, "is " + shown(*member) + ", but " + reason);
}

void ConfigFields::refuse_unknown() const {
  for (const json::Member& member : *value_.as_object()) {
    if (member.value.is_null() || known_.contains(member.key)) continue;
    unsupported(member.key,
                "is not a field this version implements; it could change what the model computes, so it is "
                "not ignored. Remove it from the config only if it does not");
  }
}

void ConfigFields::invalid(std::string_view key, const std::string& what) const {
  fail(ErrorCode::InvalidConfig, source_, ": ", prefix_, std::string(key), " ", what);
}

void ConfigFields::unsupported(std::string_view key, const std::string& what) const {
  fail(ErrorCode::UnsupportedConfig, source_, ": ", prefix_, std::string(key), " ", what);
}

}  // namespace foretoken
