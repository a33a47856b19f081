#include "backend/cuda/column_sums.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/device/reduce.h"
#include "backend/cuda/pages.h"

namespace foretoken::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kMostColumns = 256;  // of a head: two chunks for each of 16 lanes

/// One head of one row, shared by a group of lanes: lane l has chunk l of the head's first half and of its second half,
/// which are the two members of each rotated pair. Zeros beyond the end.
struct Head {
  float first[kChunk], second[kChunk];
};

/// How a warp's lanes are shared among heads: the fewest lanes, a power of two, that have all chunks of a half.
struct HeadGroups {
  int half, lanes;
  bool aligned;  // halves begin on whole chunks

  FORETOKEN_DEVICE int column() const { return lane_index() % lanes * kChunk; }
  FORETOKEN_DEVICE int per_warp() const { return kWarp / lanes; }
  /// Of the block's groups.
  FORETOKEN_DEVICE int index() const { return thread_index() / lanes; }
};

template <typename T>
FORETOKEN_DEVICE Head load_head(const T* x, const HeadGroups& groups, bool aligned) {
  Head head;
  const int c = groups.column(), count = groups.half - c;
  load_chunk(x + c, count, aligned && groups.aligned, head.first);
  load_chunk(x + groups.half + c, count, aligned && groups.aligned, head.second);
  return head;
}

template <typename T>
FORETOKEN_DEVICE void store_head(T* y, const HeadGroups& groups, bool aligned, const Head& head) {
  const int c = groups.column(), count = groups.half - c;
  store_chunk(y + c, count, aligned && groups.aligned, head.first);
  store_chunk(y + groups.half + c, count, aligned && groups.aligned, head.second);
}

/// Σ a · b: a lane's pairs in order, then the group's butterfly. A function of D only. All lanes of the warp take part.
FORETOKEN_DEVICE float dot(const Head& a, const Head& b, const HeadGroups& groups) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kChunk; ++i) {
    sum = fmaf(a.first[i], b.first[i], sum);
    sum = fmaf(a.second[i], b.second[i], sum);
  }
  for (int mask = groups.lanes / 2; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
  return sum;
}

/// Rotates each pair by the angle whose cos and sin the table has; direction −1 rotates back.
FORETOKEN_DEVICE Head rotate(const Head& x, const Head& cos_sin, float direction) {
  Head y;
#pragma unroll
  for (int i = 0; i < kChunk; ++i) {
    const float cos = cos_sin.first[i], sin = direction * cos_sin.second[i];
    y.first[i] = fmaf(x.first[i], cos, -(x.second[i] * sin));
    y.second[i] = fmaf(x.second[i], cos, x.first[i] * sin);
  }
  return y;
}

FORETOKEN_DEVICE float reciprocal_rms(const Head& x, const HeadGroups& groups, float epsilon) {
  return 1.0f / sqrtf(dot(x, x, groups) / static_cast<float>(2 * groups.half) + epsilon);
}

struct HeadShape {
  int heads, kv_heads, head_dim;
  HeadGroups groups;
};

// q, k = rotate(norm(qkv) where there is a norm weight), k and v to the row's slots; a group of lanes per head of a row.
// Moves 2 N·(H + 2K)·D elements where each row has one slot and k is not wanted.
template <typename T>
FORETOKEN_KERNEL void rope_forward_kernel(Matrix<const T> qkv, std::int64_t rows, HeadShape shape, Matrix<const float> q_norm,
                                          Matrix<const float> k_norm, float epsilon, const std::int32_t* positions,
                                          Matrix<const float> rope, CacheWrites writes, PageLayout layout, T* pages, Matrix<T> q,
                                          Matrix<T> k) {
  const HeadGroups& groups = shape.groups;
  const int D = shape.head_dim, heads = shape.heads + 2 * shape.kv_heads;
  const std::int64_t items = rows * heads, own = block_index() * (block_threads() / groups.lanes) + groups.index();
  // A warp ends as a whole; groups beyond the last head do its work again and keep it to themselves.
  if (own - groups.index() % groups.per_warp() >= items) return;
  const std::int64_t item = min_of(own, items - 1), n = item / heads;
  const int head = static_cast<int>(item - n * heads);
  const bool is_q = head < shape.heads, is_v = head >= shape.heads + shape.kv_heads;
  Head x = load_head(qkv.row(n) + head * D, groups, qkv.aligned);
  if (q_norm.data) {
    const float r = reciprocal_rms(x, groups, epsilon);
    const Matrix<const float>& norm = is_q ? q_norm : k_norm;
    const Head weight = load_head(norm.data, groups, norm.aligned);
    if (!is_v) {
#pragma unroll
      for (int i = 0; i < kChunk; ++i) {
        x.first[i] = x.first[i] * r * weight.first[i];
        x.second[i] = x.second[i] * r * weight.second[i];
      }
    }
  }
  if (own != item) return;
  if (!is_v) x = rotate(x, load_head(rope.row(positions[n]), groups, rope.aligned), 1);
  if (is_q) return store_head(q.row(n) + head * D, groups, q.aligned, x);
  const int kv_head = (head - shape.heads) % shape.kv_heads;
  if (!is_v && k.data) store_head(k.row(n) + kv_head * D, groups, k.aligned, x);
  for (std::int32_t w = writes.row_begin[n]; w < writes.row_begin[n + 1]; ++w) {
    const std::int32_t page = writes.slots[w] / kPagePositions, lane = writes.slots[w] % kPagePositions;
    T* first_lane = is_v ? layout.values(pages, page, kv_head) : layout.keys(pages, page, kv_head);
    store_head(first_lane + lane * layout.row, groups, true, x);
  }
}

// dqkv of the above; a block per piece of kSumRows rows, its groups taking the heads of all rows in turn. Where there are
// norm weights, parts[piece] (2, D) are their gradients: each group sums its heads in order, then group after group.
template <typename T>
FORETOKEN_KERNEL void rope_backward_kernel(Matrix<const float> dq, Matrix<const float> dk, Matrix<const float> dv,
                                           Matrix<const T> qkv, std::int64_t rows, HeadShape shape, Matrix<const float> q_norm,
                                           Matrix<const float> k_norm, float epsilon, const std::int32_t* positions,
                                           Matrix<const float> rope, Matrix<T> dqkv, float* parts) {
  const HeadGroups& groups = shape.groups;
  const int D = shape.head_dim, H = shape.heads, K = shape.kv_heads, count = block_threads() / groups.lanes;
  const std::int64_t begin = block_index() * kSumRows, end = min_of<std::int64_t>(rows, begin + kSumRows);
  const std::int64_t items = (end - begin) * (H + 2 * K);
  Head sums[2] = {};  // of q and k
  for (std::int64_t first = 0; first < items; first += count) {
    // All groups of a warp go round equally often; one beyond the last head keeps its results to itself.
    const bool exists = first + groups.index() < items;
    const std::int64_t item = exists ? first + groups.index() : items - 1, n = begin + item / (H + 2 * K);
    const int head = static_cast<int>(item % (H + 2 * K));
    const bool is_q = head < H, is_v = head >= H + K;
    Head d = is_q    ? load_head(dq.row(n) + head * D, groups, dq.aligned)
             : !is_v ? load_head(dk.row(n) + (head - H) * D, groups, dk.aligned)
                     : load_head(dv.row(n) + (head - H - K) * D, groups, dv.aligned);
    if (!is_v) d = rotate(d, load_head(rope.row(positions[n]), groups, rope.aligned), -1);
    if (q_norm.data) {
      Head x = load_head(qkv.row(n) + head * D, groups, qkv.aligned);
      const float r = reciprocal_rms(x, groups, epsilon);
      const Matrix<const float>& norm = is_q ? q_norm : k_norm;
      const Head weight = load_head(norm.data, groups, norm.aligned);
      Head g;
#pragma unroll
      for (int i = 0; i < kChunk; ++i) {
        x.first[i] *= r;
        x.second[i] *= r;
        g.first[i] = d.first[i] * weight.first[i];
        g.second[i] = d.second[i] * weight.second[i];
      }
      const float mean = dot(g, x, groups) / static_cast<float>(D);
#pragma unroll
      for (int of = 0; of < 2; ++of)
        if (exists && (of == 0 ? is_q : !is_q && !is_v)) {
#pragma unroll
          for (int i = 0; i < kChunk; ++i) {
            sums[of].first[i] = fmaf(d.first[i], x.first[i], sums[of].first[i]);
            sums[of].second[i] = fmaf(d.second[i], x.second[i], sums[of].second[i]);
          }
        }
      if (!is_v) {
#pragma unroll
        for (int i = 0; i < kChunk; ++i) {
          d.first[i] = r * fmaf(-x.first[i], mean, g.first[i]);
          d.second[i] = r * fmaf(-x.second[i], mean, g.second[i]);
        }
      }
    }
    if (exists) store_head(dqkv.row(n) + head * D, groups, dqkv.aligned, d);
  }
  if (!q_norm.data) return;
  float* shared = shared_memory<float>();  // (groups, 2, D)
#pragma unroll
  for (int of = 0; of < 2; ++of) store_head(shared + (groups.index() * 2 + of) * D, groups, true, sums[of]);
  sync_block();
  for (int i = thread_index(); i < 2 * D; i += block_threads()) {
    float sum = 0;
    for (int group = 0; group < count; ++group) sum += shared[group * 2 * D + i];
    parts[block_index() * 2 * D + i] = sum;
  }
}

// dq_norm, dk_norm += the parts, in order
FORETOKEN_KERNEL void add_norm_parts_kernel(const float* parts, std::int64_t pieces, int head_dim, float* dq_norm, float* dk_norm) {
  for (int i = thread_index(); i < 2 * head_dim; i += block_threads()) {
    float* total = i < head_dim ? dq_norm + i : dk_norm + (i - head_dim);
    float sum = *total;
    for (std::int64_t p = 0; p < pieces; ++p) sum += parts[p * 2 * head_dim + i];
    *total = sum;
  }
}

HeadShape head_shape(const AttentionShape& shape) {
  if (shape.head_dim > kMostColumns)
    fail(ErrorCode::UnsupportedConfig, "the GPU has kernels for heads of up to ", kMostColumns, " columns, not for ", shape.head_dim);
  const int half = shape.head_dim / 2;
  int lanes = 1;
  while (lanes < chunks_in(half)) lanes *= 2;
  return {shape.heads, shape.kv_heads, shape.head_dim, {half, lanes, half % kChunk == 0}};
}

}  // namespace

void CudaBackend::rope_forward(View qkv, View q_norm, View k_norm, double epsilon, const std::int32_t* positions,
                               View rope, const AttentionShape& shape, const CacheWrites& writes, void* pages, View q,
                               View k) {
  const HeadShape heads = head_shape(shape);
  const std::int64_t items = qkv.rows * (shape.heads + 2 * shape.kv_heads), per_block = kThreads / heads.groups.lanes;
  with_type(dtype_, [&](auto t) {
    using T = decltype(t);
    FORETOKEN_LAUNCH(*device_, (rope_forward_kernel<T>), (Grid{(items + per_block - 1) / per_block, kThreads}), matrix<const T>(qkv),
                     qkv.rows, heads, matrix<const float>(q_norm), matrix<const float>(k_norm), static_cast<float>(epsilon), positions,
                     matrix<const float>(rope), writes, page_layout(shape, dtype_), static_cast<T*>(pages), matrix<T>(q),
                     matrix<T>(k));
  });
}

void CudaBackend::rope_backward(View dq, View dk, View dv, View qkv, View q_norm, View k_norm, double epsilon,
                                const std::int32_t* positions, View rope, const AttentionShape& shape, View dqkv,
                                View dq_norm, View dk_norm) {
  const HeadShape heads = head_shape(shape);
  const std::int64_t pieces = pieces_of(dqkv.rows);
  const std::size_t norm_floats = q_norm ? static_cast<std::size_t>(2 * shape.head_dim) : 0;
  const std::size_t shared = norm_floats * (kThreads / heads.groups.lanes) * sizeof(float);
  float* parts = static_cast<float*>(scratch(static_cast<std::size_t>(pieces) * norm_floats * sizeof(float)));
  with_type(dtype_, [&](auto t) {
    using T = decltype(t);
    FORETOKEN_LAUNCH(*device_, (rope_backward_kernel<T>), (Grid{pieces, kThreads, shared}),
                     matrix<const float>(dq), matrix<const float>(dk), matrix<const float>(dv), matrix<const T>(qkv), dqkv.rows,
                     heads, matrix<const float>(q_norm), matrix<const float>(k_norm), static_cast<float>(epsilon), positions,
                     matrix<const float>(rope), matrix<T>(dqkv), parts);
  });
  if (q_norm && pieces > 0)
    FORETOKEN_LAUNCH(*device_, add_norm_parts_kernel, (Grid{1, kThreads}), parts, pieces, shape.head_dim,
                     dq_norm.as<float>(), dk_norm.as<float>());
}

}  // namespace foretoken::cuda
