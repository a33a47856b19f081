#include <bit>
#include <limits>

#include "core/json.h"
#include "test/files.h"
#include "test/test.h"

using namespace foretoken;
using namespace foretoken::test;

namespace {

json::Value parse(const std::string& text, const json::Limits& limits = {}) {
  return json::parse(text, "file", ErrorCode::InvalidConfig, limits);
}

std::string text_of(const std::string& text) { return *parse(text).as_string(); }
std::int64_t integer_of(const std::string& text) { return parse(text).as_number()->integer.value(); }
json::Number number_of(const std::string& text) { return *parse(text).as_number(); }

std::string refusal(const std::string& text, const json::Limits& limits = {}) {
  return message_of([&] { parse(text, limits); });
}

}  // namespace

TEST("json: values of every kind are read, and objects keep their order") {
  const json::Value value = parse(R"( { "z" : [ true , false , null , -12 , 0.5e1 , "text" ] , "a" : { } } )");
  CHECK_EQ(json::write(value, false), R"({"z":[true,false,null,-12,5.0,"text"],"a":{}})");
  CHECK(value.find("a")->as_object()->empty());
  CHECK(value.find("missing") == nullptr);
}

TEST("json: an integer is exact over all of int64 and absent beyond") {
  CHECK_EQ(integer_of("9223372036854775807"), std::numeric_limits<std::int64_t>::max());
  CHECK_EQ(integer_of("-9223372036854775808"), std::numeric_limits<std::int64_t>::min());
  CHECK(!number_of("9223372036854775808").integer);
  CHECK_EQ(number_of("9223372036854775808").value, 0x1p63);
  CHECK(!number_of("1.0").integer);
  CHECK(!number_of("1e2").integer);
}

TEST("json: doubles written come back with the same bits, and as floats for Python") {
  for (const double value :
       {1e-6, 0.1, 1.0 / 3.0, 1e300, 5e-324, -0.0, 1e22, 10000.0, 500000.0, 2.2250738585072014e-308}) {
    const std::string text = json::write(value);
    CHECK_EQ(std::bit_cast<std::uint64_t>(number_of(text).value), std::bit_cast<std::uint64_t>(value));
    CHECK(text.find_first_of(".e") != std::string::npos);
  }
  CHECK_FAILS(ErrorCode::InvalidArgument, json::write(std::numeric_limits<double>::infinity()));
}

TEST("json: a number too small for a double is zero or subnormal, one too large is refused") {
  CHECK_EQ(number_of("1e-400").value, 0.0);
  CHECK_EQ(number_of("-1e-400").value, 0.0);
  CHECK_EQ(number_of("4e-320").value, 4e-320);
  CHECK(contains(refusal("1e400"), "out of range"));
  CHECK(contains(refusal("-1e400"), "out of range"));
}

TEST("json: escapes, surrogate pairs and plain UTF-8 become UTF-8") {
  CHECK_EQ(text_of(R"("\"\\\/\b\f\n\r\t")"), "\"\\/\b\f\n\r\t");
  CHECK_EQ(text_of("\"\\u00e9\\u20ac\\ud83d\\ude00\\u0000\""), std::string("é€😀\0", 10));
  CHECK_EQ(text_of("\"é€😀\""), "é€😀");
  const std::string strange = "a\"\\\n\t\x01 é😀";
  CHECK_EQ(text_of(json::write(strange)), strange);
}

TEST("json: malformed UTF-8 and half surrogates are refused") {
  for (const char* bad : {"\x80", "\xc0\xaf", "\xc3", "\xe0\x80\xaf", "\xed\xa0\x80", "\xf0\x80\x80\x80",
                          "\xf4\x90\x80\x80", "\xff", "\xe2\x82"}) {
    CHECK(contains(refusal("\"" + std::string(bad) + "\""), "UTF-8"));
  }
  for (const char* bad : {R"("\ud800")", R"("\udc00")", R"("\ud800\u0041")", R"("\ud800x")"}) {
    CHECK(contains(refusal(bad), "surrogate"));
  }
}

TEST("json: what RFC 8259 does not allow is refused") {
  for (const char* bad : {"",
                          " ",
                          "{",
                          "[",
                          "[1,]",
                          "{\"a\":1,}",
                          "{a:1}",
                          "{'a':1}",
                          "{\"a\" 1}",
                          "[1 2]", "01", "-", "+1", ".5", "1.", "1e", "1e+", "--1", "0x10", "tru", "nul", "truefalse",
                          "1 2",
                          "\"a",
                          "\"\\x\"",
                          "\"\\u12g4\"",
                          "\"\\u12",
                          "\"\n\"",
                          "[1]]",
                          "// c\n1",
                          "\xef\xbb\xbf{}",
                          "nan",
                          "]",
                          "{\"a\":}",
                          "\\",
                          "{,}",
                          "[,]"}) {
    CHECK(!refusal(bad).empty());
  }
  CHECK(!refusal(std::string("1\0", 2)).empty());
}

TEST("json: NaN and Infinity as Python writes them are refused by what they are") {
  for (const char* bad : {"NaN", "Infinity", "-Infinity", "[1, NaN]"})
    CHECK(contains(refusal(bad), "NaN and Infinity"));
}

TEST("json: a key that occurs twice is refused where it occurs again") {
  CHECK_EQ(refusal("{\"a\": 1,\n \"b\": 2,\n \"a\": 3}"), "file:3:2: the key \"a\" occurs twice");
  CHECK_EQ(refusal(R"({"a": 1, "\u0061": 3})"), "file:1:10: the key \"a\" occurs twice");
}

TEST("json: an error says file, line and column") {
  CHECK_EQ(refusal("{\n  \"a\": 1,\n  \"b\": ?\n}"), "file:3:8: expected a value");
}

TEST("json: depth, number of values and size are limited") {
  CHECK(refusal(std::string(64, '[') + std::string(64, ']')).empty());
  CHECK(contains(refusal(std::string(66, '[') + std::string(66, ']')), "nested deeper"));
  CHECK(contains(refusal(std::string(1'000'000, '[')), "nested deeper"));
  CHECK(contains(refusal("[1,2,3]", {.values = 3}), "more than 3 values"));
  CHECK(contains(refusal("[1,2,3]", {.bytes = 6}), "at most 6"));
}
