#include "test/operations/forest_layout.h"

#include <algorithm>
#include <numeric>

#include "core/philox.h"

namespace foretoken::test {

namespace {

/// Rows of each segment's path, root first.
std::vector<std::vector<std::int32_t>> paths_of(const SmallForest& forest) {
  std::vector<std::vector<std::int32_t>> paths;
  std::int32_t row = 0;
  for (std::size_t s = 0; s < forest.lengths.size(); ++s) {
    paths.push_back(forest.parents[s] < 0 ? std::vector<std::int32_t>() : paths[forest.parents[s]]);
    for (int i = 0; i < forest.lengths[s]; ++i) paths.back().push_back(row++);
  }
  return paths;
}

}  // namespace

Flattened flatten(const SmallForest& forest) {
  Flattened result;
  for (const auto& path : paths_of(forest)) {
    result.forest.parents.push_back(-1);
    result.forest.lengths.push_back(static_cast<int>(path.size()));
    result.rows.insert(result.rows.end(), path.begin(), path.end());
  }
  return result;
}

Layout lay_out(const SmallForest& forest, std::int64_t P, const LayoutOptions& options) {
  Layout layout;
  const auto paths = paths_of(forest);
  for (const auto& path : paths) layout.longest_path = std::max<std::int64_t>(layout.longest_path, path.size());
  layout.table_stride = (layout.longest_path + P - 1) / P + 1;
  layout.tables.assign(paths.size() * layout.table_stride, -1);

  for (std::size_t s = 0; s < paths.size(); ++s) {
    const auto& path = paths[s];
    const int parent = forest.parents[s];
    const std::int64_t inherited = parent < 0 ? 0 : static_cast<std::int64_t>(paths[parent].size());
    const std::int64_t length = static_cast<std::int64_t>(path.size());

    for (std::int64_t b = 0; b * P < length; ++b) {
      std::int32_t& entry = layout.tables[s * layout.table_stride + b];
      if (options.shared && (b + 1) * P <= inherited) {
        entry = layout.tables[parent * layout.table_stride + b];
        continue;
      }
      entry = static_cast<std::int32_t>(layout.pages++);
      for (std::int64_t p = b * P; p < std::min(length, (b + 1) * P); ++p)
        layout.writes.push_back({path[p], static_cast<std::int32_t>(entry * P + p - b * P)});
    }

    if (parent < 0) layout.trees.push_back(static_cast<std::int32_t>(layout.runs.size()));
    for (std::int64_t p = inherited; p < length; p += options.longest_run) {
      const std::int64_t count = std::min<std::int64_t>(options.longest_run, length - p);
      layout.runs.push_back(
          {path[p], static_cast<std::int32_t>(count), static_cast<std::int32_t>(p), static_cast<std::int32_t>(s)});
      layout.longest_run = std::max(layout.longest_run, count);
      layout.path_begin.push_back(static_cast<std::int64_t>(layout.path_rows.size()));
      layout.path_rows.insert(layout.path_rows.end(), path.begin(), path.begin() + p + count);
    }
    layout.rows += length - inherited;
  }
  layout.trees.push_back(static_cast<std::int32_t>(layout.runs.size()));

  // Pages get random numbers among one and a half times as many.
  std::vector<std::int32_t> numbers(layout.pages + layout.pages / 2 + 1);
  std::iota(numbers.begin(), numbers.end(), 0);
  for (std::size_t i = numbers.size() - 1; i > 0; --i)
    std::swap(numbers[i], numbers[random_words(options.seed, RandomUse::Initialisation, 0, i)[0] % (i + 1)]);
  for (std::int32_t& page : layout.tables) page = page < 0 ? page : numbers[page];
  for (SlotWrite& write : layout.writes)
    write.slot = static_cast<std::int32_t>(numbers[write.slot / P] * P + write.slot % P);
  layout.pages = static_cast<std::int64_t>(numbers.size());
  return layout;
}

void fill_pages(Workbench& bench, const AttentionShape& shape, const Values& k, const Values& v,
                const std::vector<SlotWrite>& writes, void* pages) {
  AttentionShape keys = shape;
  keys.heads = shape.kv_heads;
  const std::int64_t cols = static_cast<std::int64_t>(shape.kv_heads) * shape.head_dim;
  const std::int64_t rows = static_cast<std::int64_t>(k.size()) / cols;
  Values qkv;
  for (std::int64_t n = 0; n < rows; ++n)
    for (const Values* part : {&k, &k, &v}) qkv.insert(qkv.end(), part->begin() + n * cols, part->begin() + (n + 1) * cols);
  Values cos_sin(static_cast<std::size_t>(shape.head_dim), 0.0);
  std::fill_n(cos_sin.begin(), shape.head_dim / 2, 1.0);
  const RowSlots slots = slots_by_row(writes, rows);
  const DType T = bench.activation();
  bench->rope_forward(bench.input(T, rows, 3 * cols, qkv), {}, {}, 0, bench.array(std::vector<std::int32_t>(rows, 0)),
                      bench.input(bench.accumulation(), 1, shape.head_dim, cos_sin), keys,
                      {bench.array(slots.row_begin), bench.array(slots.slots)}, pages, bench.output(T, rows, cols), {});
}

}  // namespace foretoken::test
