#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "core/error.h"

namespace foretoken::json {

class Value;
struct Member;
using Array = std::vector<Value>;
using Object = std::vector<Member>;  // in the order of the text; no key twice

/// A number; `integer` is present where the text has neither fraction nor exponent and the value fits.
struct Number {
  double value = 0;
  std::optional<std::int64_t> integer;
  bool operator==(const Number&) const = default;
};

/// An immutable JSON value.
class Value {
 public:
  Value() : data_(nullptr) {}
  Value(std::nullptr_t) : data_(nullptr) {}
  Value(bool value) : data_(value) {}
  Value(int value) : Value(std::int64_t{value}) {}
  Value(std::int64_t value) : data_(Number{static_cast<double>(value), value}) {}
  Value(double value) : data_(Number{value, std::nullopt}) {}
  Value(Number value) : data_(value) {}
  Value(const char* value) : data_(std::string(value)) {}
  Value(std::string value) : data_(std::move(value)) {}
  Value(Array value) : data_(std::move(value)) {}
  Value(Object value) : data_(std::move(value)) {}

  bool is_null() const { return std::holds_alternative<std::nullptr_t>(data_); }
  // Null unless the value is of that kind.
  const bool* as_bool() const { return std::get_if<bool>(&data_); }
  const Number* as_number() const { return std::get_if<Number>(&data_); }
  const std::string* as_string() const { return std::get_if<std::string>(&data_); }
  const Array* as_array() const { return std::get_if<Array>(&data_); }
  const Object* as_object() const { return std::get_if<Object>(&data_); }

  /// The member of that name, or null; null also where this is not an object.
  const Value* find(std::string_view key) const;

  /// "null", "a boolean", "an integer", "a number", "a string", "an array", "an object": for messages.
  const char* kind() const;

  bool operator==(const Value&) const = default;

 private:
  std::variant<std::nullptr_t, bool, Number, std::string, Array, Object> data_;
};

struct Member {
  std::string key;
  Value value;
  bool operator==(const Member&) const = default;
};

/// What a text may ask for; the rest is refused before memory is spent on it.
struct Limits {
  std::size_t bytes = 16u << 20;
  std::size_t values = 1u << 20;
  int depth = 64;
};

/// Reads one JSON text (RFC 8259) strictly: UTF-8 is validated, a key that occurs twice is an error, and so are the
/// NaN and Infinity that Python writes. Throws `code` with "source:line:column: what".
Value parse(std::string_view text, const std::string& source, ErrorCode code, const Limits& limits = {});

/// Writes a value as text; two spaces per level, or one line without spaces when `indent` is false. Doubles read back
/// to the same bits and always carry a point or an exponent, so that Python reads them as floats.
std::string write(const Value& value, bool indent = true);

}  // namespace foretoken::json
