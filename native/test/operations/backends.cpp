#include "test/operations/harness.h"

namespace foretoken::test {

const std::vector<BackendCase>& backend_cases() {
  static const std::vector<BackendCase> cases = [] {
    std::vector<BackendCase> list;
    list.push_back({"reference", "reference", DType::Float64, [] { return make_reference_backend(); }});
    return list;
  }();
  return cases;
}

}  // namespace foretoken::test
