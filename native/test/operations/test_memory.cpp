#include <cstdint>

#include "test/operations/harness.h"

namespace foretoken::test {
namespace {

TEST("memory: allocations lie on 64 bytes and keep what is uploaded") {
  for_each_backend([](const BackendCase& backend) {
    Workbench bench(backend);
    for (std::size_t bytes : {1, 63, 64, 1000, 100000}) {
      Buffer buffer(bench.backend(), bytes);
      CHECK_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % 64, 0u);
      std::vector<unsigned char> sent(bytes), received(bytes);
      for (std::size_t i = 0; i < bytes; ++i) sent[i] = static_cast<unsigned char>(i * 7);
      bench->upload(buffer.data(), sent.data(), bytes);
      bench->download(received.data(), buffer.data(), bytes);
      CHECK(sent == received);
    }
  });
}

TEST("memory: fill_zero clears a view and nothing beside it") {
  for_each_backend([](const BackendCase& backend) {
    for (DType dtype : {DType::Float64, DType::Float32, DType::BFloat16, DType::Float16})
      for (std::int64_t rows : {0, 1, 9}) {
        Workbench bench(backend);
        const View x = bench.output(dtype, rows, 21);
        bench->fill_zero(x);
        check_equal("x", bench.read(x), Values(rows * 21));
      }
  });
}

TEST("memory: conversions between all dtypes round to nearest even, exactly") {
  const DType dtypes[] = {DType::Float64, DType::Float32, DType::BFloat16, DType::Float16};
  for_each_backend([&](const BackendCase& backend) {
    for (DType from : dtypes)
      for (DType to : dtypes)
        for (std::int64_t rows : {1, 4}) {
          // Among them halfway cases, subnormals and overflow of the 16-bit types.
          Values values = normal(rows * 40, 1);
          const double special[] = {
              0,      -0.0,  1 + 0x1p-8, 1 + 0x1p-8 + 0x1p-16, 1 + 3 * 0x1p-8, 1 + 0x1p-11, 1e-7, 6e-8, 70000,
              -70000, 1e-40, 3.4e38};
          for (std::size_t i = 0; i < std::size(special); ++i) values[i] = special[i];
          values = rounded(values, from);
          Workbench bench(backend);
          const View out = bench.output(to, rows, 40);
          bench->convert(bench.input(from, rows, 40, values), out);
          check_equal("converted", bench.read(out), rounded(values, to));
        }
  });
}

}  // namespace
}  // namespace foretoken::test
