#include <cstdlib>
#include <string>

#include "backend/cuda/cuda_backend.h"
#include "core/error.h"
#include "test/operations/forest_layout.h"
#include "test/operations/harness.h"

// What the common tests of attention (test/operations/test_attention.cpp) cannot know of the CUDA kernels: that there is a
// set of them for each of several head sizes, that a path may be divided among blocks, and that some multiply by
// warpgroups.
namespace foretoken::test {
namespace {

struct Inputs {
  Values q, k, v, dout;  // (N, H·D), (N, K·D), (N, K·D), (N, H·D)
};

Inputs some_inputs(const AttentionShape& shape, std::int64_t N, DType dtype) {
  const std::int64_t q = N * shape.heads * shape.head_dim, kv = N * shape.kv_heads * shape.head_dim;
  return {rounded(normal(q, 1), dtype), rounded(normal(kv, 2), dtype), rounded(normal(kv, 3), dtype),
          rounded(normal(q, 4), dtype)};
}

/// The forest in one backend's memory, keys and values in pages.
struct Placed {
  Placed(const BackendCase& backend, const AttentionShape& shape, const SmallForest& forest, const Inputs& inputs,
         bool in_words = false)
      : bench(backend), shape(shape), layout(lay_out(forest, bench->page_positions())) {
    // Rows of a Workbench lie three columns apart: with five more they begin on 16 bytes, where heads are whole words.
    const auto aligned = [&](std::int64_t cols, const Values& values) {
      Values wide(static_cast<std::size_t>(layout.rows * (cols + 5)));
      for (std::size_t i = 0; i < values.size(); ++i) wide[i / cols * (cols + 5) + i % cols] = values[i];
      return bench.input(bench.activation(), layout.rows, cols + 5, wide).slice_cols(0, cols);
    };
    const std::int64_t N = layout.rows;
    const auto place = [&](int heads, const Values& values) {
      const std::int64_t cols = std::int64_t{heads} * shape.head_dim;
      return in_words ? aligned(cols, values) : bench.input(bench.activation(), N, cols, values);
    };
    q = place(shape.heads, inputs.q);
    k = place(shape.kv_heads, inputs.k);
    v = place(shape.kv_heads, inputs.v);
    pages = bench.bytes(static_cast<std::size_t>(layout.pages) * bench->page_bytes(shape));
    tables = bench.array(layout.tables);
    fill_pages(bench, shape, inputs.k, inputs.v, layout.writes, pages);
  }

  /// {out, lse} of rows [first, first + count) of the batch in these runs of them.
  Results forward(const std::vector<Run>& runs, std::int64_t longest_run, std::int64_t first, std::int64_t count) {
    const View out = bench.output(bench.activation(), count, q.cols), lse = bench.output(bench.accumulation(), count, shape.heads);
    bench->attention_forward(q.slice_rows(first, count), pages,
                             {bench.array(runs), static_cast<std::int64_t>(runs.size()), longest_run, tables,
                              layout.table_stride, layout.longest_path},
                             shape, out, lse);
    return {bench.read(out), bench.read(lse)};
  }
  Results forward() { return forward(layout.runs, layout.longest_run, 0, layout.rows); }

  /// {dq, dk, dv}
  Results backward(const Results& forward, const Values& dout) {
    const DType A = bench.accumulation();
    const View dq = bench.output(A, q.rows, q.cols), dk = bench.output(A, k.rows, k.cols), dv = bench.output(A, k.rows, k.cols);
    const PackedPaths paths{bench.array(layout.runs), static_cast<std::int64_t>(layout.runs.size()), bench.array(layout.trees),
                            static_cast<std::int64_t>(layout.trees.size()) - 1, bench.array(layout.path_begin),
                            bench.array(layout.path_rows), layout.longest_path};
    bench->attention_backward(q, k, v, bench.input(bench.activation(), q.rows, q.cols, forward[0]),
                              bench.input(bench.activation(), q.rows, q.cols, dout), bench.input(A, q.rows, shape.heads, forward[1]), paths,
                              shape, dq, dk, dv);
    return {bench.read(dq), bench.read(dk), bench.read(dv)};
  }

  Workbench bench;
  AttentionShape shape;
  Layout layout;
  View q, k, v;
  void* pages;
  const std::int32_t* tables;
};

void for_each_cuda_backend(const std::function<void(const BackendCase&)>& body) {
  for_each_backend([&](const BackendCase& backend) {
    if (backend.family.find("cuda") != std::string::npos) body(backend);
  });
}

/// Heads of `from` columns with zeros behind them, `to` columns in all.
Values widened(const Values& x, int from, int to) {
  Values result(x.size() / from * to);
  for (std::size_t i = 0; i < x.size(); ++i) result[i / from * to + i % from] = x[i];
  return result;
}

TEST("cuda attention: heads with zeros behind them have the bits of those without, whichever kernel takes their size") {
  const SmallForest forest = {{-1, 0, 0, -1}, {150, 70, 9, 20}};
  for_each_cuda_backend([&](const BackendCase& backend) {
    for (const int window : {0, 75}) {
      const AttentionShape narrow{6, 2, 24, 0.2f, window};
      const Inputs inputs = some_inputs(narrow, 249, backend.dtype);
      Placed placed(backend, narrow, forest, inputs);
      const Results forward = placed.forward(), backward = placed.backward(forward, inputs.dout);
      for (const int D : {40, 72, 96, 120, 136}) {
        const AttentionShape wide{6, 2, D, 0.2f, window};
        const auto widen = [&](const Values& x) { return widened(x, 24, D); };
        Placed other(backend, wide, forest, {widen(inputs.q), widen(inputs.k), widen(inputs.v), {}});
        const Results wide_forward = other.forward(), wide_backward = other.backward(wide_forward, widen(inputs.dout));
        check_equal("out", wide_forward[0], widen(forward[0]));
        check_equal("lse", wide_forward[1], forward[1]);
        for (int i = 0; i < 3; ++i) check_equal("gradient", wide_backward[i], widen(backward[i]));
      }
    }
  });
}

TEST("cuda attention: a row that decodes alone has the same bits when its path is divided among blocks") {
  for_each_cuda_backend([](const BackendCase& backend) {
    for (const AttentionShape& shape : {AttentionShape{3, 1, 64, 0.125f, 0}, AttentionShape{16, 1, 20, 0.2f, 0},
                                        AttentionShape{2, 1, 128, 0.1f, 150}}) {
      const std::int64_t N = 300;
      Placed placed(backend, shape, {{-1}, {static_cast<int>(N)}}, some_inputs(shape, N, backend.dtype));
      const Results whole = placed.forward();
      for (const std::int32_t row : {64, 130, 299}) {
        const Results alone = placed.forward({{0, 1, row, 0}}, 1, row, 1);
        check_equal("out", alone[0], rows_of(whole[0], placed.q.cols, row, 1));
        check_equal("lse", alone[1], rows_of(whole[1], shape.heads, row, 1));
      }
    }
  });
}

/// The backend with FORETOKEN_CUDA_ATTENTION set.
BackendCase choosing(const BackendCase& backend, const char* attention) {
  BackendCase result = backend;
  result.make = [=, make = backend.make] {
    const char* before = std::getenv("FORETOKEN_CUDA_ATTENTION");
    const std::string kept = before ? before : "";
    setenv("FORETOKEN_CUDA_ATTENTION", attention, 1);
    const auto restore = [&] {
      before ? setenv("FORETOKEN_CUDA_ATTENTION", kept.c_str(), 1) : unsetenv("FORETOKEN_CUDA_ATTENTION");
    };
    try {
      auto made = make();
      restore();
      return made;
    } catch (...) {
      restore();
      throw;
    }
  };
  return result;
}

TEST("cuda attention: warpgroups give the bits of warps, whatever the head, group, window and forest") {
  for_each_cuda_backend([](const BackendCase& backend) {
    if (backend.dtype != DType::BFloat16) return;
    const BackendCase warps = choosing(backend, "mma"), warpgroups = choosing(backend, "wgmma");
    try {
      warpgroups.make();
    } catch (const Error& error) {
      if (error.code() == ErrorCode::DeviceUnavailable) return;  // a GPU that has no such products
      throw;
    }
    const SmallForest trees = {{-1, 0, 0, -1}, {130, 70, 9, 20}}, one = {{-1}, {300}}, few = {{-1, -1}, {17, 66}};
    const std::pair<AttentionShape, SmallForest> cases[] = {
        {{6, 2, 64, 0.2f, 0}, trees}, {{3, 1, 128, 0.1f, 0}, trees},       {{7, 1, 24, 0.3f, 75}, trees},
        {{4, 2, 20, 0.3f, 0}, few},   {{22, 1, 8, 0.3f, 0}, {{-1}, {200}}}, {{1, 1, 128, 0.1f, 100}, one},
        {{2, 2, 80, 0.1f, 0}, few},   {{2, 1, 96, 0.1f, 30}, few},         {{20, 1, 8, 0.3f, 0}, few},
        {{1, 1, 64, 0.1f, 0}, one},   {{1, 1, 136, 0.1f, 0}, few},
    };
    for (const auto& [shape, forest] : cases) {
      std::int64_t N = 0;
      for (const int length : forest.lengths) N += length;
      const Inputs inputs = some_inputs(shape, N, backend.dtype);
      Placed by_warps(warps, shape, forest, inputs, true), by_warpgroups(warpgroups, shape, forest, inputs, true);
      const Results forward = by_warps.forward(), same = by_warpgroups.forward();
      check_equal("out", same[0], forward[0]);
      check_equal("lse", same[1], forward[1]);
      const Results backward = by_warps.backward(forward, inputs.dout), gradients = by_warpgroups.backward(forward, inputs.dout);
      for (int i = 0; i < 3; ++i) check_equal("gradient", gradients[i], backward[i]);
    }
  });
}

/// A GPU whose blocks have as little shared memory as a consumer's.
BackendCase small_gpu(DType dtype) {
  return {"cuda with 99 KB", "", dtype, [dtype] {
            return std::make_unique<cuda::CudaBackend>(cuda::make_host_device(cuda::ThreadOrder::Forward, "small", 99 * 1024), dtype);
          }};
}

TEST("cuda attention: with little shared memory heads of 128 columns have the same bits in bfloat16") {
  for_each_cuda_backend([](const BackendCase& backend) {
    if (backend.name.find("host") == std::string::npos || backend.dtype != DType::BFloat16) return;
    const AttentionShape shape{3, 1, 128, 0.1f, 0};
    const SmallForest forest = {{-1, 0}, {70, 41}};
    const Inputs inputs = some_inputs(shape, 111, backend.dtype);
    Placed large(backend, shape, forest, inputs), small(small_gpu(backend.dtype), shape, forest, inputs);
    const Results forward = large.forward();
    CHECK(small.forward() == forward);
    CHECK(small.backward(forward, inputs.dout) == large.backward(forward, inputs.dout));
  });
}

TEST("cuda attention: what needs more shared memory than there is says so") {
  const AttentionShape shape{2, 1, 128, 0.1f, 0};
  Placed placed(small_gpu(DType::Float32), shape, {{-1}, {20}}, some_inputs(shape, 20, DType::Float32));
  const Results forward = placed.forward();
  CHECK_FAILS(ErrorCode::UnsupportedConfig, placed.backward(forward, normal(20 * 256, 4)));
}

TEST("cuda attention: a wish that is no kind of products is refused") {
  for_each_cuda_backend([](const BackendCase& backend) {
    CHECK_FAILS(ErrorCode::InvalidArgument, choosing(backend, "tensor").make());
  });
}

}  // namespace
}  // namespace foretoken::test
