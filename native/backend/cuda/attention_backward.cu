#include <algorithm>
#include <initializer_list>

#include "backend/cuda/attention_backward.h"

#include "backend/cuda/cuda_backend.h"

namespace foretoken::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kQuad = 4;

// tiles[r] = Σ over the runs before r of their tiles. One block.
FORETOKEN_KERNEL void run_tiles_kernel(const Run* runs, std::int64_t count, int per_row, int tile_rows, std::int32_t* tiles) {
  FORETOKEN_SHARED std::int32_t sums[kThreads];
  const std::int64_t each = (count + kThreads - 1) / kThreads;
  const std::int64_t begin = min_of(thread_index() * each, count), end = min_of(begin + each, count);
  const auto tiles_of = [&](std::int64_t r) { return (runs[r].count * per_row + tile_rows - 1) / tile_rows; };
  std::int32_t sum = 0;
  for (std::int64_t r = begin; r < end; ++r) sum += tiles_of(r);
  sums[thread_index()] = sum;
  sync_block();
  std::int32_t before = 0;
  for (int i = 0; i < thread_index(); ++i) before += sums[i];
  for (std::int64_t r = begin; r < end; ++r) {
    tiles[r] = before;
    before += tiles_of(r);
  }
  if (thread_index() == kThreads - 1) tiles[count] = before;
}

// delta = Σ dout · out. Four lanes share a row and head, a lane takes every fourth chunk in order, then pairs of lanes are
// added.
template <typename T>
FORETOKEN_KERNEL void attention_delta_kernel(Matrix<const T> out, Matrix<const T> dout, std::int64_t items, int heads,
                                             int head_dim, float* delta) {
  const std::int64_t item = global_index() / kQuad;
  const bool there = item < items, whole = head_dim % kChunk == 0;
  const std::int64_t n = item / heads, h = item % heads;
  float sum = 0;
  for (int d = thread_index() % kQuad * kChunk; there && d < head_dim; d += kQuad * kChunk) {
    float upstream[kChunk], result[kChunk];
    load_chunk(dout.row(n) + h * head_dim + d, head_dim - d, dout.aligned && whole, upstream);
    load_chunk(out.row(n) + h * head_dim + d, head_dim - d, out.aligned && whole, result);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) sum = fmaf(upstream[i], result[i], sum);
  }
  sum += shuffle_xor(sum, 1);
  sum += shuffle_xor(sum, 2);
  if (there && thread_index() % kQuad == 0) delta[item] = sum;
}

/// Whether kernels on warpgroup products take these: heads of at most 128 columns, rows in whole aligned words, and not so
/// many that dividing them by the group would not be exact.
template <typename T>
bool suits_warpgroups(std::initializer_list<View> operands, const AttentionShape& shape) {
  const std::int64_t group = shape.heads / shape.kv_heads, rows = operands.begin()->rows;
  return shape.head_dim <= 128 && shape.head_dim % kWordElements<T> == 0 && rows * group * group < std::int64_t{1} << 32 &&
         std::all_of(operands.begin(), operands.end(), [](const View& x) { return matrix<const T>(x).aligned; });
}

}  // namespace

template <typename T>
std::size_t attention_backward_bytes(const AttentionShape& shape, std::int64_t rows, std::int64_t runs_count, bool warpgroups) {
  const KeyScratch keys = key_scratch<T>(shape, rows, runs_count, warpgroups);
  const std::int64_t words = keys.sums_floats + rows * shape.heads + 2 * (runs_count + 1) + 2 * keys.most_tiles + 1;
  return static_cast<std::size_t>(words) * sizeof(float);
}
template std::size_t attention_backward_bytes<float>(const AttentionShape&, std::int64_t, std::int64_t, bool);
template std::size_t attention_backward_bytes<BFloat16>(const AttentionShape&, std::int64_t, std::int64_t, bool);

std::int64_t launch_run_tiles(Device& device, const PackedPaths& paths, std::int64_t rows, int per_row, int tile_rows,
                              std::int32_t* tiles) {
  FORETOKEN_LAUNCH(device, run_tiles_kernel, (Grid{1, kThreads}), paths.runs, paths.runs_count, per_row, tile_rows, tiles);
  return rows * per_row / tile_rows + paths.runs_count;
}

// With p_j = exp(s_j − lse) and delta = dout · out: ds_j = scale · p_j · (dout · v_j − delta), dq = Σ ds_j · k_j,
// dk_j = Σ ds_j · q, dv_j = Σ p_j · dout. p and ds are rounded to T before they are multiplied. dq is computed by
// blocks of queries and dk, dv by blocks of keys, both from the scores, so that no two blocks add to the same number.
void CudaBackend::attention_backward(View q, View k, View v, View out, View dout, View lse, const PackedPaths& paths,
                                     const AttentionShape& shape, View dq, View dk, View dv) {
  if (paths.runs_count == 0) return;
  with_type(dtype_, [&](auto t) {
    using T = decltype(t);
    const std::int64_t items = q.rows * shape.heads, tiles_count = paths.runs_count + 1;
    const bool warpgroups = std::is_same_v<T, BFloat16> && warpgroup_attention_ &&
                            suits_warpgroups<T>({q, k, v, dout}, shape);
    KeyScratch keys = key_scratch<T>(shape, q.rows, paths.runs_count, warpgroups);
    keys.sums = static_cast<float*>(scratch(attention_backward_bytes<T>(shape, q.rows, paths.runs_count, warpgroups)));
    float* delta = keys.sums + keys.sums_floats;
    std::int32_t* tiles = reinterpret_cast<std::int32_t*>(delta + items);
    keys.tiles = tiles + tiles_count;
    keys.items = keys.tiles + tiles_count;
    keys.slots = keys.items + keys.most_tiles + 1;
    FORETOKEN_LAUNCH(*device_, (attention_delta_kernel<T>), (Grid{(items * kQuad + kThreads - 1) / kThreads, kThreads}),
                     matrix<const T>(out), matrix<const T>(dout), items, shape.heads, shape.head_dim, delta);
    const BackwardCall<T> call{matrix<const T>(q), matrix<const T>(k), matrix<const T>(v), matrix<const T>(dout),
                               matrix<const float>(lse), delta, paths, shape, nullptr};
    if constexpr (std::is_same_v<T, BFloat16>)
      if (warpgroups) launch_attention_backward_q_sm90(*device_, call, q.rows, tiles, matrix<float>(dq));
    if (!warpgroups) launch_attention_backward_q(*device_, call, q.rows, tiles, matrix<float>(dq));
    launch_attention_backward_kv(*device_, call, q.rows, keys, warpgroups, matrix<float>(dk), matrix<float>(dv));
  });
}

}  // namespace foretoken::cuda
