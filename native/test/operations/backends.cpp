#include <cstdlib>

#include "backend/cpu/cpu_backend.h"
#include "backend/cuda/host_backend.h"
#include "backend/cuda_library.h"
#include "test/operations/harness.h"

namespace foretoken::test {

const std::vector<BackendCase>& backend_cases() {
  static const std::vector<BackendCase> cases = [] {
    std::vector<BackendCase> list;
    list.push_back({"reference", "reference", DType::Float64, [] { return make_reference_backend(); }});
    // With a GPU (scripts/gpu-check.sh) it is the only one to be compared: the others need none.
    if (const char* library = std::getenv("FORETOKEN_TEST_CUDA")) {
      for (DType dtype : {DType::Float32, DType::BFloat16}) {
        const std::string name = std::string("cuda ") + name_of(dtype);
        list.push_back({name, name, dtype, [=] { return make_cuda_backend(library, -1, dtype); }});
      }
      return list;
    }
    for (cpu::Isa isa : cpu::kAllIsas)
      for (DType dtype : {DType::Float32, DType::BFloat16})
        for (int threads : {1, 2}) {
          if (!cpu::isa_available(isa)) continue;
          const std::string family = std::string("cpu ") + cpu::name_of(isa) + ' ' + name_of(dtype);
          list.push_back({family + ", threads: " + std::to_string(threads), family, dtype,
                          [=] { return make_cpu_backend({.dtype = dtype, .threads = threads, .isa = isa}); }});
        }
    for (DType dtype : {DType::Float32, DType::BFloat16})
      for (const auto& [order, order_name] : {std::pair{cuda::ThreadOrder::Forward, "forward"},
                                              {cuda::ThreadOrder::Reverse, "reverse"},
                                              {cuda::ThreadOrder::Random, "random"}}) {
#if defined(__SANITIZE_ADDRESS__)
        // Fibers are slow there, and orders of threads are compared without it.
        if (order != cuda::ThreadOrder::Random) continue;
#endif
        const std::string family = std::string("cuda on the host, ") + name_of(dtype);
        list.push_back({family + ", threads " + order_name, family, dtype,
                        [=, order = order] { return make_cuda_host_backend(dtype, order); }});
      }
    return list;
  }();
  return cases;
}

}  // namespace foretoken::test
