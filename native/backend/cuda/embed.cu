#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/elementwise.h"

namespace foretoken::cuda {

namespace {

// x[n] = table[tokens[n]], rounded to T
template <typename Table, typename T>
FORETOKEN_KERNEL void embed_forward_kernel(const std::int32_t* tokens, Matrix<const Table> table, Matrix<float> x, Chunks chunks) {
  for_chunks(chunks, [&](std::int64_t n, std::int64_t c, std::int64_t count) {
    float v[kChunk];
    load_chunk(table.row(tokens[n]) + c, count, table.aligned, v);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) v[i] = widen(narrow<T>(v[i]));
    store_chunk(x.row(n) + c, count, x.aligned, v);
  });
}

constexpr int kBackwardThreads = 128;
constexpr int kBackwardCols = kBackwardThreads * kChunk;  // of a band

// dtable[token] += dx[n] for all rows n with that token, in packed order: the block of the token's first row adds them
// all, the blocks of the others have nothing to do. No atomics; a column's sum is sequential. Reads the tokens once per
// distinct token and band of columns, from cache.
FORETOKEN_KERNEL void FORETOKEN_BOUNDS(kBackwardThreads)
    embed_backward_kernel(const std::int32_t* tokens, std::int64_t rows, Matrix<const float> dx, Matrix<float> dtable,
                          std::int64_t cols) {
  FORETOKEN_SHARED std::int32_t found[kBackwardThreads];  // rows of the token, ascending
  FORETOKEN_SHARED int warp_counts[kBackwardThreads / kWarp];
  const std::int64_t first = block_index();
  const std::int32_t token = tokens[first];
  const std::int64_t col = (static_cast<std::int64_t>(band_index()) * kBackwardThreads + thread_index()) * kChunk;
  const std::int64_t count = min_of<std::int64_t>(kChunk, cols - col);

  // Calls body(how many) for every stretch of rows that has some of the token; `found` holds them.
  const auto for_matches = [&](std::int64_t begin, std::int64_t end, const auto& body) {
    for (std::int64_t base = begin; base < end; base += kBackwardThreads) {
      const std::int64_t n = base + thread_index();
      const bool match = n < end && tokens[n] == token;
      const std::uint32_t votes = ballot(match);
      if (lane_index() == 0) warp_counts[warp_index()] = count_bits(votes);
      sync_block();
      int before = 0, total = 0;
      for (int w = 0; w < kBackwardThreads / kWarp; ++w) {
        if (w < warp_index()) before += warp_counts[w];
        total += warp_counts[w];
      }
      if (match) found[before + count_bits(votes & ((1u << lane_index()) - 1))] = static_cast<std::int32_t>(n);
      sync_block();
      if (total > 0 && !body(total)) return;
    }
  };

  bool is_first = true;
  for_matches(0, first, [&](int) { return is_first = false; });
  if (!is_first) return;

  float sum[kChunk] = {};
  if (count > 0) load_chunk(dtable.row(token) + col, count, dtable.aligned, sum);
  for_matches(first, rows, [&](int total) {
    if (count <= 0) return true;
#pragma unroll 4
    for (int m = 0; m < total; ++m) {
      float v[kChunk];
      load_chunk(dx.row(found[m]) + col, count, dx.aligned, v);
#pragma unroll
      for (int i = 0; i < kChunk; ++i) sum[i] += v[i];
    }
    return true;
  });
  if (count > 0) store_chunk(dtable.row(token) + col, count, dtable.aligned, sum);
}

}  // namespace

void CudaBackend::embed_forward(const std::int32_t* tokens, View table, View x) {
  const Chunks chunks = Chunks::of(x.rows, x.cols, false);
  with_type(table.dtype, [&](auto e) {
    with_type(dtype_, [&](auto t) {
      using Table = decltype(e);
      using T = decltype(t);
      FORETOKEN_LAUNCH(*device_, (embed_forward_kernel<Table, T>), chunks.grid(), tokens, matrix<const Table>(table), matrix<float>(x), chunks);
    });
  });
}

void CudaBackend::embed_backward(const std::int32_t* tokens, View dx, View dtable) {
  const int bands = static_cast<int>((dx.cols + kBackwardCols - 1) / kBackwardCols);
  FORETOKEN_LAUNCH(*device_, embed_backward_kernel, (Grid{dx.rows, kBackwardThreads, 0, bands}), tokens, dx.rows,
                   matrix<const float>(dx), matrix<float>(dtable), dx.cols);
}

}  // namespace foretoken::cuda
