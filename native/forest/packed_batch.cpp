#include "forest/packed_batch.h"

#include <algorithm>

#include "core/error.h"

namespace foretoken {

namespace {

/// How many of each entry's tokens need rows: all that something depends on, and one at least. A rollout's last token
/// predicts nothing.
std::vector<std::int32_t> needed_tokens(const TokenForest& forest, const MicroBatch& batch, const std::vector<bool>& predicted,
                                        const std::vector<std::int32_t>& extra_rows) {
  std::vector<bool> continued(forest.segments().size(), false);
  for (const auto& [index, owned] : batch.entries)
    if (const std::int32_t parent = forest.segments()[index].parent; parent >= 0) continued[parent] = true;
  std::vector<std::int32_t> needed;
  for (const auto& [index, owned] : batch.entries) {
    const Segment& segment = forest.segments()[index];
    std::int32_t count = segment.length;
    while (!continued[index] && count > 1) {
      const std::int64_t last = segment.begin + count - 1, next = last + 1;
      const bool has_target = owned && count < segment.length && (predicted.empty() || predicted[next]);
      if (has_target || std::binary_search(extra_rows.begin(), extra_rows.end(), static_cast<std::int32_t>(last))) break;
      --count;
    }
    needed.push_back(count);
  }
  return needed;
}

/// Rows that tell which token of the forest lies where, and the attention paths over them.
void lay_out_paths(const TokenForest& forest, const MicroBatch& batch, const std::vector<std::int32_t>& needed, std::int64_t P,
                   PackedBatch& packed) {
  const std::vector<Segment>& segments = forest.segments();
  std::vector<std::int32_t> run_of(segments.size(), -1);
  std::int64_t blocks = 0;
  for (std::size_t entry = 0; entry < batch.entries.size(); ++entry) {
    const std::int64_t end = std::int64_t{segments[batch.entries[entry].segment].start_position} + needed[entry];
    blocks = std::max(blocks, (end + P - 1) / P);
    packed.longest_run = std::max<std::int64_t>(packed.longest_run, needed[entry]);
    packed.longest_path = std::max(packed.longest_path, end);
  }
  packed.table_stride = blocks;
  packed.tables.assign(batch.entries.size() * static_cast<std::size_t>(blocks), 0);

  for (std::size_t entry = 0; entry < batch.entries.size(); ++entry) {
    const std::int32_t index = batch.entries[entry].segment, length = needed[entry];
    const Segment& segment = segments[index];
    const auto run = static_cast<std::int32_t>(packed.runs.size());
    const auto row = static_cast<std::int32_t>(packed.tokens.size());
    run_of[index] = run;
    if (segment.parent < 0) packed.trees.push_back(run);
    packed.runs.push_back({row, length, segment.start_position, run});
    for (std::int32_t i = 0; i < length; ++i) {
      packed.tokens.push_back(forest.tokens()[segment.begin + i]);
      packed.positions.push_back(segment.start_position + i);
      packed.forest_index.push_back(segment.begin + i);
    }

    const auto path_begin = static_cast<std::int64_t>(packed.path_rows.size());
    packed.path_begin.push_back(path_begin);
    std::int32_t* table = packed.tables.data() + run * blocks;
    const std::int64_t start = segment.start_position, end = start + length;
    if (segment.parent >= 0) {
      const std::int32_t parent = run_of[segment.parent];
      invariant(parent >= 0, "a micro-batch holds every segment's parent before it");
      const std::int64_t parent_begin = packed.path_begin[parent];
      for (std::int64_t p = 0; p < start; ++p) packed.path_rows.push_back(packed.path_rows[parent_begin + p]);
      std::copy_n(packed.tables.data() + parent * blocks, start / P, table);
    }
    for (std::int32_t i = 0; i < length; ++i) packed.path_rows.push_back(row + i);
    // From the block that the segment begins in on, the path has pages of its own; if it begins inside a block,
    // that page repeats the ancestors' last rows, so that every block of every path is one page.
    for (std::int64_t block = start / P; block * P < end; ++block) {
      const auto page = static_cast<std::int32_t>(packed.pages++);
      table[block] = page;
      for (std::int64_t p = block * P; p < std::min(end, (block + 1) * P); ++p)
        packed.writes.push_back({packed.path_rows[path_begin + p], static_cast<std::int32_t>(page * P + p - block * P)});
    }
  }
  packed.trees.push_back(static_cast<std::int32_t>(packed.runs.size()));
}

void lay_out_targets(const TokenForest& forest, const MicroBatch& batch, const std::vector<bool>& predicted,
                     const std::vector<std::int32_t>& extra_rows, PackedBatch& packed) {
  struct Target {
    std::int32_t row, token;
    std::int64_t index;  // -1: the row is wanted for its logits only
  };
  std::vector<Target> targets;
  for (std::size_t run = 0; run < batch.entries.size(); ++run) {
    const auto& [index, owned] = batch.entries[run];
    const Segment& segment = forest.segments()[index];
    if (!owned) continue;
    for (std::int32_t i = 0; i < segment.length; ++i) {
      const std::int64_t token = segment.begin + i;
      if (std::binary_search(extra_rows.begin(), extra_rows.end(), static_cast<std::int32_t>(token)))
        targets.push_back({packed.runs[run].row + i, 0, -1});
      const std::int64_t position = std::int64_t{segment.start_position} + i;
      if (position == 0 || (!predicted.empty() && !predicted[token])) continue;
      targets.push_back({packed.path_rows[packed.path_begin[run] + position - 1], forest.tokens()[token], token});
    }
  }
  std::stable_sort(targets.begin(), targets.end(), [](const Target& a, const Target& b) { return a.row < b.row; });
  for (const Target& target : targets) {
    if (packed.head_rows.empty() || packed.head_rows.back() != target.row) {
      packed.head_rows.push_back(target.row);
      packed.target_begin.push_back(static_cast<std::int32_t>(packed.target_index.size()));
    }
    if (target.index < 0) continue;
    packed.target_tokens.push_back(target.token);
    packed.target_index.push_back(target.index);
  }
  packed.target_begin.push_back(static_cast<std::int32_t>(packed.target_index.size()));
}

}  // namespace

PackedBatch pack(const TokenForest& forest, const MicroBatch& batch, std::int64_t page_positions,
                 const std::vector<bool>& predicted, const std::vector<std::int32_t>& extra_rows) {
  PackedBatch packed;
  lay_out_paths(forest, batch, needed_tokens(forest, batch, predicted, extra_rows), page_positions, packed);
  lay_out_targets(forest, batch, predicted, extra_rows, packed);
  return packed;
}

}  // namespace foretoken
