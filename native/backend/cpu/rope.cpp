#include "backend/cpu/operations.h"

namespace foretoken::cpu {

namespace {

RopeRows rows_of(const View& qkv, const View& q_norm, const View& k_norm, double epsilon, const std::int32_t* positions,
                 const View& rope, const AttentionShape& shape, std::int64_t begin, std::int64_t rows) {
  RopeRows job;
  job.qkv = qkv.slice_rows(begin, rows).data;
  job.qkv_stride = qkv.stride;
  job.q_norm = q_norm.as<float>();
  job.k_norm = k_norm.as<float>();
  job.epsilon = static_cast<float>(epsilon);
  job.positions = positions + begin;
  job.rope = rope.as<float>();
  job.rope_stride = rope.stride;
  job.heads = shape.heads;
  job.kv_heads = shape.kv_heads;
  job.head_dim = shape.head_dim;
  job.rows = rows;
  return job;
}

}  // namespace

void CpuBackend::rope_forward(View qkv, View q_norm, View k_norm, double epsilon, const std::int32_t* positions,
                              View rope, const AttentionShape& shape, const CacheWrites& writes, void* pages, View q,
                              View k) {
  // Rotated keys that nobody else wants are a row for each worker, on their way to the pages.
  const std::int64_t kv_cols = static_cast<std::int64_t>(shape.kv_heads) * shape.head_dim;
  float* passing = k ? nullptr : scratch(team_.size(), kv_cols);
  for_rows(qkv.rows, qkv.cols, [&](std::int64_t begin, std::int64_t rows, int worker) {
    RopeRows job = rows_of(qkv, q_norm, k_norm, epsilon, positions, rope, shape, begin, rows);
    job.q = q.slice_rows(begin, rows).data;
    job.q_stride = q.stride;
    job.k = k ? k.slice_rows(begin, rows).data : passing + worker * kv_cols;
    job.k_stride = k ? k.stride : 0;
    job.row_begin = writes.row_begin + begin;
    job.slots = writes.slots;
    job.pages = pages;
    kernels_.rope_forward(job);
  });
}

void CpuBackend::rope_backward(View dq, View dk, View dv, View qkv, View q_norm, View k_norm, double epsilon,
                               const std::int32_t* positions, View rope, const AttentionShape& shape, View dqkv,
                               View dq_norm, View dk_norm) {
  const std::int64_t D = shape.head_dim, pieces = (qkv.rows + kSumRows - 1) / kSumRows;
  // Shares of dq_norm (pieces, D), then of dk_norm, then a head's worth for each piece.
  float* parts = scratch(3 * pieces, D);
  team_.parallel_for(pieces, [&](std::int64_t piece, int) {
    const std::int64_t begin = piece * kSumRows, rows = std::min(kSumRows, qkv.rows - begin);
    RopeRows job = rows_of(qkv, q_norm, k_norm, epsilon, positions, rope, shape, begin, rows);
    job.dq = dq.row<float>(begin);
    job.dq_stride = dq.stride;
    job.dk = dk.row<float>(begin);
    job.dk_stride = dk.stride;
    job.dv = dv.row<float>(begin);
    job.dv_stride = dv.stride;
    job.dqkv = dqkv.slice_rows(begin, rows).data;
    job.dqkv_stride = dqkv.stride;
    job.dq_norm = parts + piece * D;
    job.dk_norm = parts + (pieces + piece) * D;
    job.scratch = parts + (2 * pieces + piece) * D;
    kernels_.rope_backward(job);
  });
  if (q_norm) add_parts(parts, pieces, D, dq_norm.as<float>());
  if (k_norm) add_parts(parts + pieces * D, pieces, D, dk_norm.as<float>());
}

}  // namespace foretoken::cpu
