#include <cstring>

#include "backend/cpu/operations.h"

namespace foretoken::cpu {

namespace {

std::int64_t padded(std::int64_t count) { return (count + kPagePositions - 1) / kPagePositions * kPagePositions; }

}  // namespace

std::int64_t attention_forward_scratch(const Kernels& kernels, std::int64_t longest_path, int head_dim) {
  return (kernels.query_tile + kernels.rows_beyond) * (2 * padded(head_dim) + padded(longest_path) + kPagePositions);
}

std::int64_t attention_path_floats(std::int64_t longest_path, int head_dim) {
  return 2 * (padded(longest_path) + kPagePositions) * padded(head_dim);
}

std::int64_t attention_backward_scratch(const Kernels& kernels, std::int64_t longest_path, int head_dim) {
  return 3 * (padded(longest_path) + kPagePositions) * padded(head_dim) +
         kernels.gradient_tile * (3 * padded(head_dim) + (1 + 2 * 4) * kPagePositions);
}

std::size_t CpuBackend::page_bytes(const AttentionShape& shape) const {
  return static_cast<std::size_t>(2 * kPagePositions * shape.kv_heads * shape.head_dim) * size_of(dtype_);
}

void CpuBackend::cache_copy(const std::int32_t* from, const std::int32_t* to, std::int64_t count,
                            const AttentionShape& shape, void* pages, std::int64_t layers, std::size_t layer_bytes) {
  const std::size_t bytes = page_bytes(shape);
  team_.parallel_for(layers * count, [&](std::int64_t task, int) {
    std::byte* layer = static_cast<std::byte*>(pages) + static_cast<std::size_t>(task / count) * layer_bytes;
    std::memcpy(layer + static_cast<std::size_t>(to[task % count]) * bytes,
                layer + static_cast<std::size_t>(from[task % count]) * bytes, bytes);
  });
}

void CpuBackend::attention_forward(View q, const void* pages, const PagedPaths& paths, const AttentionShape& shape,
                                   View out, View lse) {
  query_rows_.clear();
  for (std::int64_t r = 0; r < paths.runs_count; ++r) {
    const Run& run = paths.runs[r];
    for (std::int32_t i = 0; i < run.count; ++i)
      query_rows_.push_back({run.row + i, run.position + i, paths.tables + run.table * paths.table_stride});
  }
  const std::int64_t rows = static_cast<std::int64_t>(query_rows_.size());
  if (rows == 0) return;

  // Tasks: some rows, and some of the query heads of one kv head. Neighbouring rows share the loads of common pages;
  // a small batch is cut finer so that every thread has work.
  const int group = shape.heads / shape.kv_heads;
  const int heads_at_once = std::min(group, kernels_.query_tile);
  const int head_pieces = (group + heads_at_once - 1) / heads_at_once;
  std::int64_t rows_at_once = kernels_.query_tile / heads_at_once;
  const auto tiles = [&] { return (rows + rows_at_once - 1) / rows_at_once; };
  while (rows_at_once > 1 && tiles() * shape.kv_heads * head_pieces < 3 * team_.size()) rows_at_once /= 2;

  const std::int64_t floats = attention_forward_scratch(kernels_, paths.longest_path, shape.head_dim);
  float* memory = scratch(team_.size(), floats);
  const std::int64_t head_tasks = static_cast<std::int64_t>(shape.kv_heads) * head_pieces;
  team_.parallel_for(tiles() * head_tasks, [&](std::int64_t task, int worker) {
    // The rows with the longest paths tend to come last; they are the ones to begin with.
    const std::int64_t begin = (tiles() - 1 - task / head_tasks) * rows_at_once;
    const int kv_head = static_cast<int>(task % head_tasks) / head_pieces;
    const int piece = static_cast<int>(task % head_tasks) % head_pieces;
    AttentionTile tile;
    tile.q = q.data;
    tile.q_stride = q.stride;
    tile.pages = pages;
    tile.page_stride = static_cast<std::int64_t>(page_bytes(shape) / size_of(dtype_));
    tile.kv_head = kv_head;
    tile.head_dim = shape.head_dim;
    tile.first_head = kv_head * group + piece * heads_at_once;
    tile.heads = std::min(heads_at_once, group - piece * heads_at_once);
    tile.scale = shape.scale;
    tile.window = shape.window;
    tile.rows = query_rows_.data() + begin;
    tile.rows_count = static_cast<int>(std::min(rows_at_once, rows - begin));
    tile.out = out.data;
    tile.out_stride = out.stride;
    tile.lse = lse.as<float>();
    tile.lse_stride = lse.stride;
    tile.scratch = memory + worker * floats;
    kernels_.attention_forward(tile);
  });
}

// A run's rows are cut into pieces of kPieceRows. The pieces of a tree add their shares to dk and dv in order. Where
// trees and kv heads are too few for the threads, pieces of one tree are computed at the same time, in waves, and their
// shares are added afterwards: in the same order, hence with the same bits.
void CpuBackend::attention_backward(View q, View k, View v, View out, View dout, View lse, const PackedPaths& paths,
                                    const AttentionShape& shape, View dq, View dk, View dv) {
  fill_zero(dk);
  fill_zero(dv);
  query_runs_.clear();
  tree_pieces_.assign(1, 0);
  for (std::int64_t tree = 0; tree < paths.trees_count; ++tree) {
    for (std::int32_t r = paths.trees[tree]; r < paths.trees[tree + 1]; ++r) {
      const Run& run = paths.runs[r];
      for (std::int32_t i = 0; i < run.count; i += kPieceRows)
        query_runs_.push_back({run.row + i, std::min(kPieceRows, run.count - i), run.position + i,
                               paths.path_rows + paths.path_begin[r]});
    }
    tree_pieces_.push_back(static_cast<std::int64_t>(query_runs_.size()));
  }

  AttentionPiece whole;
  whole.q = q.data;
  whole.q_stride = q.stride;
  whole.k = k.data;
  whole.k_stride = k.stride;
  whole.v = v.data;
  whole.v_stride = v.stride;
  whole.out = out.data;
  whole.out_stride = out.stride;
  whole.dout = dout.data;
  whole.dout_stride = dout.stride;
  whole.lse = lse.as<float>();
  whole.lse_stride = lse.stride;
  whole.dq = dq.as<float>();
  whole.dq_stride = dq.stride;
  whole.dk = dk.as<float>();
  whole.dk_stride = dk.stride;
  whole.dv = dv.as<float>();
  whole.dv_stride = dv.stride;
  whole.group = shape.heads / shape.kv_heads;
  whole.head_dim = shape.head_dim;
  whole.scale = shape.scale;
  whole.window = shape.window;

  const std::int64_t heads = shape.kv_heads, threads = team_.size();
  const bool by_trees = paths.trees_count * heads >= 4 * threads || threads == 1;
  const std::int64_t at_once = by_trees ? threads : attention_paths_at_once(threads);  // shares that are held
  const std::int64_t path_floats = attention_path_floats(paths.longest_path, shape.head_dim);
  const std::int64_t floats = attention_backward_scratch(kernels_, paths.longest_path, shape.head_dim);
  float* shares = scratch(1, at_once * path_floats + threads * floats);
  float* memory = shares + at_once * path_floats;
  const auto piece_of = [&](std::int64_t index, std::int64_t head, std::int64_t share) {
    AttentionPiece piece = whole;
    piece.run = query_runs_[static_cast<std::size_t>(index)];
    piece.kv_head = static_cast<int>(head);
    piece.dpath = shares + share * path_floats;
    return piece;
  };

  if (by_trees) {
    team_.parallel_for(paths.trees_count * heads, [&](std::int64_t task, int worker) {
      for (std::int64_t i = tree_pieces_[task / heads]; i < tree_pieces_[task / heads + 1]; ++i) {
        AttentionPiece piece = piece_of(i, task % heads, worker);
        piece.scratch = memory + worker * floats;
        kernels_.attention_backward(piece);
        kernels_.attention_backward_add(piece);
      }
    });
    return;
  }
  const std::int64_t tasks = static_cast<std::int64_t>(query_runs_.size()) * heads;
  for (std::int64_t begin = 0; begin < tasks; begin += at_once) {
    const std::int64_t wave = std::min(at_once, tasks - begin);
    team_.parallel_for(wave, [&](std::int64_t i, int worker) {
      AttentionPiece piece = piece_of((begin + i) / heads, (begin + i) % heads, i);
      piece.scratch = memory + worker * floats;
      kernels_.attention_backward(piece);
    });
    team_.parallel_for(heads, [&](std::int64_t head, int) {
      for (std::int64_t i = 0; i < wave; ++i)
        if ((begin + i) % heads == head) kernels_.attention_backward_add(piece_of((begin + i) / heads, head, i));
    });
  }
}

}  // namespace foretoken::cpu
