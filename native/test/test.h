#pragma once

#include <cmath>
#include <sstream>
#include <string>
#include <vector>

/// The test frame: a test is a sentence and a body; a failed check throws, and the runner names test, file and line.
///
///   TEST("a row's bits do not depend on the batch") {
///     CHECK(a == b);
///     CHECK_EQ(rows, 3);
///     CHECK_CLOSE(loss, 0.5, 1e-6);               // |a - b| <= tolerance
///     CHECK_FAILS(ErrorCode::Io, open("nowhere"));  // needs core/error.h
///   }
namespace foretoken::test {

struct Failure {
  std::string message;
};

/// Thrown by SKIP: what the test needs is not on this machine.
struct Skipped {
  std::string reason;
};

struct Case {
  const char* name;
  const char* file;
  int line;
  void (*body)();
};

/// All tests of the program, in order of registration.
inline std::vector<Case>& cases() {
  static std::vector<Case> list;
  return list;
}

struct Registration {
  Registration(const char* name, const char* file, int line, void (*body)()) { cases().push_back({name, file, line, body}); }
};

template <typename... Parts>
[[noreturn]] void fail_check(const char* file, int line, const Parts&... parts) {
  std::ostringstream text;
  text.precision(17);
  text << file << ':' << line << ": ";
  (text << ... << parts);
  throw Failure{text.str()};
}

}  // namespace foretoken::test

#define FORETOKEN_JOIN_(a, b) a##b
#define FORETOKEN_JOIN(a, b) FORETOKEN_JOIN_(a, b)
#define FORETOKEN_TEST_(name, id)                                                                       \
  static void FORETOKEN_JOIN(test_body_, id)();                                                         \
  static const ::foretoken::test::Registration FORETOKEN_JOIN(test_registration_, id)(                  \
      name, __FILE__, __LINE__, &FORETOKEN_JOIN(test_body_, id));                                       \
  static void FORETOKEN_JOIN(test_body_, id)()
#define TEST(name) FORETOKEN_TEST_(name, __COUNTER__)

#define CHECK(condition) \
  do { if (!(condition)) ::foretoken::test::fail_check(__FILE__, __LINE__, #condition); } while (false)

#define CHECK_EQ(actual, expected)                                                                                  \
  do {                                                                                                              \
    const auto& actual_ = (actual);                                                                                 \
    const auto& expected_ = (expected);                                                                             \
    if (!(actual_ == expected_))                                                                                    \
      ::foretoken::test::fail_check(__FILE__, __LINE__, #actual " is ", actual_, ", expected ", expected_);         \
  } while (false)

#define CHECK_CLOSE(actual, expected, tolerance)                                                                    \
  do {                                                                                                              \
    const double actual_ = static_cast<double>(actual), expected_ = static_cast<double>(expected);                  \
    if (!(std::fabs(actual_ - expected_) <= (tolerance)))                                                           \
      ::foretoken::test::fail_check(__FILE__, __LINE__, #actual " is ", actual_, ", expected ", expected_, " within ", \
                                    static_cast<double>(tolerance));                                                \
  } while (false)

#define CHECK_FAILS(error_code, expression)                                                                         \
  do {                                                                                                              \
    bool failed_ = false;                                                                                           \
    try {                                                                                                           \
      (void)(expression);                                                                                           \
    } catch (const ::foretoken::Error& error_) {                                                                    \
      failed_ = true;                                                                                               \
      if (error_.code() != (error_code))                                                                            \
        ::foretoken::test::fail_check(__FILE__, __LINE__, #expression " failed as ",                                \
                                      ::foretoken::error_code_name(error_.code()), ": ", error_.what());            \
    }                                                                                                               \
    if (!failed_) ::foretoken::test::fail_check(__FILE__, __LINE__, #expression " did not fail");                   \
  } while (false)

#define SKIP(reason) throw ::foretoken::test::Skipped{reason}
