#include <cstdio>
#include <cstring>
#include <exception>

#include "test/test.h"

/// Runs the tests whose name or file contains one of the arguments (all without arguments); exits 1 if one failed.
int main(int count, char** arguments) {
  using namespace foretoken::test;
  int passed = 0, failed = 0, skipped = 0;
  for (const Case& test : cases()) {
    bool wanted = count == 1;
    for (int i = 1; i < count; ++i) wanted |= std::strstr(test.name, arguments[i]) || std::strstr(test.file, arguments[i]);
    if (!wanted) continue;
    const auto report = [&](const char* message) {
      std::printf("FAILED  %s\n        %s\n", test.name, message);
      ++failed;
    };
    try {
      test.body();
      ++passed;
    } catch (const Skipped& skip) {
      std::printf("skipped %s: %s\n", test.name, skip.reason.c_str());
      ++skipped;
    } catch (const Failure& failure) {
      report(failure.message.c_str());
    } catch (const std::exception& error) {
      report(error.what());
    }
    std::fflush(stdout);
  }
  std::printf("native tests: %d passed, %d failed, %d skipped\n", passed, failed, skipped);
  if (passed + failed + skipped == 0) std::printf("no test matches\n");
  return failed > 0 || passed + skipped == 0;
}
