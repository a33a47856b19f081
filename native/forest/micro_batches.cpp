#include "forest/micro_batches.h"

#include <algorithm>

#include "core/error.h"

namespace foretoken {

namespace {

/// Segments in depth-first order, children in the order of adding.
std::vector<std::int32_t> depth_first(const std::vector<Segment>& segments) {
  const std::size_t count = segments.size();
  std::vector<std::int32_t> first_child(count, -1), next_sibling(count, -1), roots;
  for (std::size_t i = count; i-- > 0;) {
    const std::int32_t parent = segments[i].parent;
    if (parent < 0) { roots.push_back(static_cast<std::int32_t>(i)); continue; }
    next_sibling[i] = first_child[parent];
    first_child[parent] = static_cast<std::int32_t>(i);
  }
  // `roots` holds the last root first: a stack whose top is the first root.
  std::vector<std::int32_t> order, stack = std::move(roots), children;
  order.reserve(count);
  while (!stack.empty()) {
    const std::int32_t segment = stack.back();
    stack.pop_back();
    order.push_back(segment);
    children.clear();
    for (std::int32_t child = first_child[segment]; child >= 0; child = next_sibling[child]) children.push_back(child);
    stack.insert(stack.end(), children.rbegin(), children.rend());
  }
  return order;
}

}  // namespace

std::vector<MicroBatch> plan_micro_batches(const TokenForest& forest, const std::vector<bool>& wanted, std::int64_t budget) {
  const std::vector<Segment>& segments = forest.segments();
  std::vector<bool> keep(segments.size(), wanted.empty());
  for (std::size_t s = 0; s < wanted.size(); ++s)
    if (wanted[s])
      for (auto up = static_cast<std::int32_t>(s); up >= 0 && !keep[up]; up = segments[up].parent) keep[up] = true;

  std::vector<MicroBatch> batches;
  std::vector<std::int64_t> inside(segments.size(), -1);  // the last micro-batch that holds the segment
  std::vector<bool> owned(segments.size(), false);
  std::vector<std::int32_t> missing;
  for (const std::int32_t segment : depth_first(segments)) {
    if (!keep[segment]) continue;
    const auto collect = [&](std::int64_t batch) {
      missing.clear();
      std::int64_t tokens = 0;
      for (std::int32_t up = segment; up >= 0 && inside[up] != batch; up = segments[up].parent) {
        missing.push_back(up);
        tokens += segments[up].length;
      }
      return tokens;
    };
    std::int64_t tokens = collect(static_cast<std::int64_t>(batches.size()) - 1);
    if (batches.empty() || (batches.back().tokens > 0 && batches.back().tokens + tokens > budget)) {
      batches.emplace_back();
      tokens = collect(static_cast<std::int64_t>(batches.size()) - 1);
    }
    MicroBatch& batch = batches.back();
    for (auto up = missing.rbegin(); up != missing.rend(); ++up) {
      inside[*up] = static_cast<std::int64_t>(batches.size()) - 1;
      batch.entries.push_back({*up, !owned[*up]});
      owned[*up] = true;
    }
    batch.tokens += tokens;
  }
  return batches;
}

}  // namespace foretoken
