#pragma once

#include "backend/cuda/attention_backward.h"

// What the kernels of dk and dv, by warps and by warpgroups, have in common.
namespace foretoken::cuda {

// Keys at the root of a tree may be seen by a thousand times as many queries as those of its leaves. So the queries of a
// tile are cut into pieces of so many steps, each for a block of its own, whose sums are added in order. Their number is
// limited by memory: of the tiles that need pieces the first ones get them.
inline constexpr int kPieceSteps = 128;

// Of a tile and of a step, where warpgroups multiply.
inline constexpr int kWarpgroupKeys = 128, kWarpgroupQueries = 32;

/// The queries that a tile of keys is seen by, step by step: the runs of its tree in order, of each the packed rows whose
/// path has the tile's first key. All warps of a block find the same.
struct QuerySteps {
  // The tile: `count` keys that begin at a position and a row of the batch.
  int position, row, count;
  int group, window, tree_end;
  PackedPaths paths;

  int index = 0;       // run; tree_end after the last step
  Run run = {};
  int begin = 0, end = 0;  // packed rows that remain
  int shared = 0;      // so many of the tile's keys lie on the run's path: the first ones, as paths only part

  FORETOKEN_DEVICE bool done() const { return index >= tree_end; }

  FORETOKEN_DEVICE void find(int from) {
    for (index = tree_end; from < tree_end; from += kWarp) {
      const std::uint32_t found = ballot(from + lane_index() < tree_end && sees(from + lane_index()));
      if (found == 0) continue;
      index = from + lowest_bit(found);
      break;
    }
    if (done()) return;
    run = paths.runs[index];
    begin = max_of(0, position - run.position) * group;
    end = (window > 0 ? min_of(run.count, position + count - 1 + window - run.position) : run.count) * group;
    const std::int32_t* path = paths.path_rows + paths.path_begin[index];
    shared = 0;
    for (int i = 0; i < count; i += kWarp) {
      const int key = i + lane_index(), at = position + key;
      shared += count_bits(ballot(key < count && at < run.position + run.count && path[at] == row + key));
    }
  }
  /// What remains of the run, in steps of so many queries.
  FORETOKEN_DEVICE int steps(int queries) const { return (end - begin + queries - 1) / queries; }
  FORETOKEN_DEVICE void advance(int queries, int count = 1) {
    for (; !done(); find(index + 1)) {
      const int here = steps(queries);
      if (count < here) {
        begin += count * queries;
        return;
      }
      count -= here;
    }
  }

 private:
  FORETOKEN_DEVICE bool sees(int r) const {
    const Run candidate = paths.runs[r];
    if (candidate.position + candidate.count <= position) return false;
    if (window > 0 && candidate.position >= position + count - 1 + window) return false;
    return paths.path_rows[paths.path_begin[r] + position] == row;
  }
};

/// The tree of run `run`: the first run after it.
FORETOKEN_DEVICE int tree_end_of(const PackedPaths& paths, std::int64_t run) {
  return paths.trees[last_not_after(paths.trees, paths.trees_count, run) + 1];
}

/// A tile of keys of a run.
struct KeyTile {
  std::int64_t run_index;
  Run run;
  int first, count;  // of the run's rows

  template <typename T>
  FORETOKEN_DEVICE static KeyTile of(const BackwardCall<T>& call, std::int64_t tile, int keys) {
    const std::int64_t run_index = call.run_of(tile);
    const Run run = call.paths.runs[run_index];
    const int first = static_cast<int>(tile - call.tiles[run_index]) * keys;
    return {run_index, run, first, min_of(keys, run.count - first)};
  }
  template <typename T>
  FORETOKEN_DEVICE QuerySteps queries(const BackwardCall<T>& call) const {
    QuerySteps steps{run.position + first, run.row + first, count, call.group(), call.shape.window,
                     tree_end_of(call.paths, run_index), call.paths};
    steps.find(static_cast<int>(run_index));
    return steps;
  }
};

/// Which blocks compute a tile: items[t] … items[t + 1), of one piece each and with sums in slots[t] and after where there
/// are several, slots[t] < 0 where one block does it all.
struct Pieces {
  std::int32_t* items;  // (tiles + 1)
  std::int32_t* slots;  // (tiles)
  float* sums;          // (slots, K, 2, keys, columns)
  int most_slots;

  FORETOKEN_DEVICE float* sum(std::int64_t slot, int kv_heads, int kv_head, int gradient, int keys, int columns) const {
    return sums + (((slot * kv_heads + kv_head) * 2 + gradient) * keys) * columns;
  }
};

/// The kernel of attention_backward_kv_sm90.cu; `blocks` pieces at most.
void launch_attention_backward_kv_sm90(Device& device, const BackwardCall<BFloat16>& call, std::int64_t blocks,
                                       std::int64_t most_tiles, const Pieces& pieces, Matrix<float> dk, Matrix<float> dv);

}  // namespace foretoken::cuda
