#include "core/json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <numeric>

namespace foretoken::json {

namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// Bytes of the well-formed UTF-8 sequence at `text[at]`, or 0 (Unicode 15, table 3-7: no overlong forms, surrogates
/// or values above U+10FFFF).
std::size_t utf8_length(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0u; };
  const auto continues = [&](std::size_t i) { return (byte(i) & 0xC0u) == 0x80u; };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return continues(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    const unsigned low = first == 0xE0 ? 0xA0 : 0x80, high = first == 0xED ? 0x9F : 0xBF;
    return byte(1) >= low && byte(1) <= high && continues(2) ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    const unsigned low = first == 0xF0 ? 0x90 : 0x80, high = first == 0xF4 ? 0x8F : 0xBF;
    return byte(1) >= low && byte(1) <= high && continues(2) && continues(3) ? 4 : 0;
  }
  return 0;
}

void append_utf8(std::string& text, std::uint32_t code) {
  const auto put = [&](std::uint32_t byte) { text += static_cast<char>(byte); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | (code >> 6));
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | (code >> 12));
    put(0x80 | ((code >> 6) & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | (code >> 18));
    put(0x80 | ((code >> 12) & 0x3F));
    put(0x80 | ((code >> 6) & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

/// The double nearest to a number in JSON's grammar; false where it is too large. Not locale-dependent.
bool to_double(std::string_view token, double& value) {
#if defined(__cpp_lib_to_chars)
  const auto result = std::from_chars(token.data(), token.data() + token.size(), value);
  if (result.ec == std::errc{}) return true;
  // Too small is as far out of range as too large for from_chars; for us it is zero or the nearest subnormal.
  value = std::strtod(std::string(token).c_str(), nullptr);
  return std::abs(value) < 1.0;
#else
  value = std::strtod(std::string(token).c_str(), nullptr);
  return std::isfinite(value);
#endif
}

class Parser {
 public:
  Parser(std::string_view text, const std::string& source, ErrorCode code, const Limits& limits)
      : text_(text), source_(source), code_(code), limits_(limits) {}

  Value parse_text() {
    if (text_.size() > limits_.bytes) {
      fail(code_, source_, ": ", text_.size(), " bytes of JSON; at most ", limits_.bytes, " are read");
    }
    skip_space();
    Value value = parse_value(0);
    skip_space();
    if (at_ < text_.size()) refuse("unexpected text after the value");
    return value;
  }

 private:
  [[noreturn]] void refuse_at(std::size_t at, const std::string& what) const {
    const std::string_view before = text_.substr(0, at);
    const auto line = 1 + std::count(before.begin(), before.end(), '\n');
    const std::size_t line_start = before.rfind('\n') + 1;  // npos + 1 is 0
    fail(code_, source_, ":", line, ":", at - line_start + 1, ": ", what);
  }
  [[noreturn]] void refuse(const std::string& what) const { refuse_at(at_, what); }

  bool at_end() const { return at_ >= text_.size(); }
  char peek() const { return at_end() ? '\0' : text_[at_]; }

  void skip_space() {
    while (!at_end() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t')) ++at_;
  }

  bool accept(std::string_view token) {
    if (text_.substr(at_, token.size()) != token) return false;
    at_ += token.size();
    return true;
  }

  Value parse_value(int depth) {
    if (++values_ > limits_.values) refuse("more than " + std::to_string(limits_.values) + " values");
    if (depth > limits_.depth) refuse("nested deeper than " + std::to_string(limits_.depth) + " levels");
    if (at_end()) refuse("the text ends where a value must be");
    switch (text_[at_]) {
      case '{': return parse_object(depth);
      case '[': return parse_array(depth);
      case '"': return parse_string();
      case 't':
        if (accept("true")) return true;
        break;
      case 'f':
        if (accept("false")) return false;
        break;
      case 'n':
        if (accept("null")) return nullptr;
        break;
      default: return parse_number();
    }
    refuse("expected a value");
  }

  Value parse_object(int depth) {
    Object members;
    std::vector<std::size_t> offsets;  // of the keys, to point at a repeated one
    ++at_;
    skip_space();
    if (accept("}")) return members;
    while (true) {
      if (peek() != '"') refuse("expected a key in double quotes");
      offsets.push_back(at_);
      std::string key = parse_string();
      skip_space();
      if (!accept(":")) refuse("expected ':' after a key");
      skip_space();
      Value value = parse_value(depth + 1);
      members.push_back({std::move(key), std::move(value)});
      skip_space();
      if (accept("}")) break;
      if (!accept(",")) refuse("expected ',' or '}'");
      skip_space();
    }
    refuse_repeated(members, offsets);
    return members;
  }

  void refuse_repeated(const Object& members, const std::vector<std::size_t>& offsets) const {
    std::vector<std::size_t> order(members.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      const int compared = members[a].key.compare(members[b].key);
      return compared != 0 ? compared < 0 : a < b;
    });
    for (std::size_t i = 1; i < order.size(); ++i) {
      if (members[order[i]].key == members[order[i - 1]].key) {
        refuse_at(offsets[order[i]], "the key " + write(members[order[i]].key) + " occurs twice");
      }
    }
  }

  Value parse_array(int depth) {
    Array elements;
    ++at_;
    skip_space();
    if (accept("]")) return elements;
    while (true) {
      elements.push_back(parse_value(depth + 1));
      skip_space();
      if (accept("]")) return elements;
      if (!accept(",")) refuse("expected ',' or ']'");
      skip_space();
    }
  }

  std::string parse_string() {
    const std::size_t start = at_++;
    std::string out;
    while (true) {
      if (at_end()) refuse_at(start, "this string does not end");
      const char c = text_[at_];
      if (c == '"') {
        ++at_;
        return out;
      }
      if (c == '\\') {
        parse_escape(out);
      } else if (static_cast<unsigned char>(c) < 0x20) {
        refuse("a control character in a string must be escaped");
      } else {
        const std::size_t length = utf8_length(text_, at_);
        if (length == 0) refuse("the text is not valid UTF-8");
        out.append(text_.substr(at_, length));
        at_ += length;
      }
    }
  }

  void parse_escape(std::string& out) {
    const std::size_t start = at_++;
    const char c = peek();
    ++at_;
    switch (c) {
      case '"':
      case '\\':
      case '/': out += c; return;
      case 'b': out += '\b'; return;
      case 'f': out += '\f'; return;
      case 'n': out += '\n'; return;
      case 'r': out += '\r'; return;
      case 't': out += '\t'; return;
      case 'u': break;
      default: refuse_at(start, "unknown escape in a string");
    }
    std::uint32_t code = parse_hex4(start);
    if (code >= 0xD800 && code <= 0xDBFF) {
      if (!accept("\\u")) refuse_at(start, "half of a surrogate pair");
      const std::uint32_t low = parse_hex4(start);
      if (low < 0xDC00 || low > 0xDFFF) refuse_at(start, "half of a surrogate pair");
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    } else if (code >= 0xDC00 && code <= 0xDFFF) {
      refuse_at(start, "half of a surrogate pair");
    }
    append_utf8(out, code);
  }

  std::uint32_t parse_hex4(std::size_t start) {
    std::uint32_t code = 0;
    const std::string_view digits = text_.substr(std::min(at_, text_.size()), 4);
    const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
    if (digits.size() != 4 || result.ptr != digits.data() + 4) refuse_at(start, "expected four hex digits after \\u");
    at_ += 4;
    return code;
  }

  Value parse_number() {
    const std::size_t start = at_;
    if (accept("NaN") || accept("Infinity") || accept("-Infinity")) {
      refuse_at(start, "NaN and Infinity are no JSON; write a finite number or null");
    }
    if (peek() == '-') ++at_;
    if (!is_digit(peek())) refuse_at(start, "expected a value");
    if (peek() == '0') ++at_;
    else skip_digits();
    if (is_digit(peek())) refuse_at(start, "a number must not start with 0");
    bool whole = true;
    if (peek() == '.') {
      whole = false;
      ++at_;
      if (!is_digit(peek())) refuse("expected a digit after the decimal point");
      skip_digits();
    }
    if (peek() == 'e' || peek() == 'E') {
      whole = false;
      ++at_;
      if (peek() == '+' || peek() == '-') ++at_;
      if (!is_digit(peek())) refuse("expected a digit in the exponent");
      skip_digits();
    }
    const std::string_view token = text_.substr(start, at_ - start);
    Number number;
    if (!to_double(token, number.value)) refuse_at(start, "this number is out of range");
    std::int64_t integer = 0;
    if (whole && std::from_chars(token.data(), token.data() + token.size(), integer).ec == std::errc{}) {
      number.integer = integer;
    }
    return number;
  }

  void skip_digits() {
    while (is_digit(peek())) ++at_;
  }

  std::string_view text_;
  const std::string& source_;
  ErrorCode code_;
  const Limits& limits_;
  std::size_t at_ = 0;
  std::size_t values_ = 0;
};

class Writer {
 public:
  explicit Writer(bool indent) : indent_(indent) {}

  void put(const Value& value, int level) {
    if (const bool* boolean = value.as_bool()) out += *boolean ? "true" : "false";
    else if (const Number* number = value.as_number()) put_number(*number);
    else if (const std::string* string = value.as_string()) put_string(*string);
    else if (const Array* array = value.as_array()) put_array(*array, level);
    else if (const Object* object = value.as_object()) put_object(*object, level);
    else out += "null";
  }

  std::string out;

 private:
  void put_array(const Array& array, int level) {
    out += '[';
    for (std::size_t i = 0; i < array.size(); ++i) {
      if (i > 0) out += ',';
      new_line(level + 1);
      put(array[i], level + 1);
    }
    if (!array.empty()) new_line(level);
    out += ']';
  }

  void put_object(const Object& object, int level) {
    out += '{';
    for (std::size_t i = 0; i < object.size(); ++i) {
      if (i > 0) out += ',';
      new_line(level + 1);
      put_string(object[i].key);
      out += indent_ ? ": " : ":";
      put(object[i].value, level + 1);
    }
    if (!object.empty()) new_line(level);
    out += '}';
  }

  void new_line(int level) {
    if (!indent_) return;
    out += '\n';
    out.append(2 * static_cast<std::size_t>(level), ' ');
  }

  void put_number(const Number& number) {
    if (number.integer) {
      out += std::to_string(*number.integer);
      return;
    }
    if (!std::isfinite(number.value)) fail(ErrorCode::InvalidArgument, "NaN and infinity cannot be written as JSON");
    char text[32];
#if defined(__cpp_lib_to_chars)
    const std::string_view digits(
        text, static_cast<std::size_t>(std::to_chars(text, text + sizeof text, number.value).ptr - text));
#else
    const std::string_view digits(text,
                                  static_cast<std::size_t>(std::snprintf(text, sizeof text, "%.17g", number.value)));
#endif
    out += digits;
    if (digits.find_first_of(".e") == std::string_view::npos) out += ".0";
  }

  void put_string(const std::string& string) {
    out += '"';
    for (const char c : string) {
      switch (c) {
        case '"': out += "\\\""; break;
        case '\\': out += "\\\\"; break;
        case '\n': out += "\\n"; break;
        case '\r': out += "\\r"; break;
        case '\t': out += "\\t"; break;
        default:
          if (static_cast<unsigned char>(c) < 0x20) {
            char escape[8];
            std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(c));
            out += escape;
          } else {
            out += c;
          }
      }
    }
    out += '"';
  }

  bool indent_;
};

}  // namespace

const Value* Value::find(std::string_view key) const {
  if (const Object* object = as_object()) {
    for (const Member& member : *object) {
      if (member.key == key) return &member.value;
    }
  }
  return nullptr;
}

const char* Value::kind() const {
  if (as_bool()) return "a boolean";
  if (const Number* number = as_number()) return number->integer ? "an integer" : "a number";
  if (as_string()) return "a string";
  if (as_array()) return "an array";
  if (as_object()) return "an object";
  return "null";
}

Value parse(std::string_view text, const std::string& source, ErrorCode code, const Limits& limits) {
  return Parser(text, source, code, limits).parse_text();
}

std::string write(const Value& value, bool indent) {
  Writer writer(indent);
  writer.put(value, 0);
  return std::move(writer.out);
}

}  // namespace foretoken::json
