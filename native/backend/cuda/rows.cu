#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/elementwise.h"

namespace foretoken::cuda {

namespace {

// y[m] = x[index[m]]
template <typename T>
FORETOKEN_KERNEL void gather_rows_kernel(Matrix<const T> x, const std::int32_t* index, Matrix<T> y, Chunks chunks) {
  for_chunks(chunks, [&](std::int64_t m, std::int64_t c, std::int64_t count) {
    float v[kChunk];
    load_chunk(x.row(index[m]) + c, count, x.aligned, v);
    store_chunk(y.row(m) + c, count, y.aligned, v);
  });
}

// dx[index[m]] += dy[m]; no index twice, so no two threads meet.
FORETOKEN_KERNEL void scatter_add_rows_kernel(Matrix<const float> dy, const std::int32_t* index, Matrix<float> dx, Chunks chunks) {
  for_chunks(chunks, [&](std::int64_t m, std::int64_t c, std::int64_t count) {
    float v[kChunk], sum[kChunk];
    float* target = dx.row(index[m]) + c;
    load_chunk(dy.row(m) + c, count, dy.aligned, v);
    load_chunk(target, count, dx.aligned, sum);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) sum[i] += v[i];
    store_chunk(target, count, dx.aligned, sum);
  });
}

FORETOKEN_KERNEL void select_tokens_kernel(const std::int32_t* given, const std::int32_t* drawn, const std::int32_t* from,
                                           std::int64_t count, TokenRules rules, std::int32_t* tokens, Run* runs) {
  const std::int64_t i = global_index();
  if (i >= count) return;
  const bool is_drawn = from[i] >= 0;
  const std::int32_t token = is_drawn ? drawn[from[i]] : given[i];
  tokens[i] = token;
  for (std::int64_t s = 0; is_drawn && s < rules.stops_count; ++s)
    if (token == rules.stops[s]) runs[i].count = 0;
}

}  // namespace

void CudaBackend::gather_rows(View x, const std::int32_t* index, View y) {
  const Chunks chunks = Chunks::of(y.rows, y.cols, false);
  with_type(y.dtype, [&](auto t) {
    using T = decltype(t);
    FORETOKEN_LAUNCH(*device_, (gather_rows_kernel<T>), chunks.grid(), matrix<const T>(x), index, matrix<T>(y), chunks);
  });
}

void CudaBackend::scatter_add_rows(View dy, const std::int32_t* index, View dx) {
  const Chunks chunks = Chunks::of(dy.rows, dy.cols, false);
  FORETOKEN_LAUNCH(*device_, scatter_add_rows_kernel, chunks.grid(), matrix<const float>(dy), index, matrix<float>(dx), chunks);
}

void CudaBackend::select_tokens(const std::int32_t* given, const std::int32_t* drawn, const std::int32_t* from, std::int64_t count,
                                const TokenRules& rules, std::int32_t* tokens, Run* runs) {
  const int threads = threads_for(count);
  FORETOKEN_LAUNCH(*device_, select_tokens_kernel, (Grid{(count + threads - 1) / threads, threads}), given, drawn, from, count, rules,
                   tokens, runs);
}

}  // namespace foretoken::cuda
