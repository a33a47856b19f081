#include "model/kept_activations.h"

#include <algorithm>

namespace foretoken {

namespace {

/// The views of a block that are kept, beside the residual stream before it.
constexpr View BlockActivations::*kKept[] = {&BlockActivations::qkv,       &BlockActivations::q,   &BlockActivations::k,
                                             &BlockActivations::attention, &BlockActivations::lse, &BlockActivations::x_mid,
                                             &BlockActivations::gate_up};

}  // namespace

void KeptActivations::lay_out(Arena& arena, const Backend& backend, const ModelConfig& config, const Extent& extent) {
  const DType A = backend.accumulation_dtype();
  BlockActivations shape;
  Arena counts;
  shape.lay_out(counts, backend, config, extent.rows, true);
  blocks_.assign(static_cast<std::size_t>(config.num_layers), {});
  x_.clear();
  for (BlockActivations& block : blocks_) {
    x_.push_back(arena.matrix(A, extent.rows, config.hidden_size));
    for (const auto view : kKept) block.*view = arena.matrix((shape.*view).dtype, extent.rows, (shape.*view).cols);
  }
  x_.push_back(arena.matrix(A, extent.rows, config.hidden_size));
  logits_ = arena.matrix(A, extent.logits, config.vocab_size);
}

std::size_t KeptActivations::bytes_for(const Backend& backend, const ModelConfig& config, const Extent& extent) {
  KeptActivations kept;
  Arena plan;
  kept.lay_out(plan, backend, config, extent);
  return plan.used();
}

KeptActivations::Extent KeptActivations::fitting(const Backend& backend, const ModelConfig& config, const Extent& wanted,
                                                 std::size_t bytes) {
  constexpr std::int64_t kMany = 1024;  // the rounding of the arena's parts matters little
  const std::size_t row = bytes_for(backend, config, {kMany, 0}) / kMany + 1, logits = bytes_for(backend, config, {0, kMany}) / kMany;
  Extent extent;
  extent.rows = std::min(wanted.rows, static_cast<std::int64_t>(bytes / row));
  extent.logits = std::min(wanted.logits, static_cast<std::int64_t>((bytes - static_cast<std::size_t>(extent.rows) * row) / logits));
  return extent;
}

void KeptActivations::reserve(Backend& backend, const ModelConfig& config, const Extent& extent) {
  forget();
  const std::size_t bytes = bytes_for(backend, config, extent);
  if (bytes > buffer_.bytes()) {
    release();
    buffer_ = Buffer(backend, bytes);
  }
  Arena arena(buffer_.data());
  lay_out(arena, backend, config, extent);
  capacity_ = extent;
}

void KeptActivations::release() {
  forget();
  buffer_ = Buffer();
  capacity_ = {};
}

void KeptActivations::forget() {
  tree_.clear();
  logits_of_.clear();
  used_ = placed_ = {};
}

std::optional<ForwardMemory> KeptActivations::place(std::int64_t rows, const BlockActivations& shared) {
  placed_ = {};
  if (rows > capacity_.rows - used_.rows) return std::nullopt;
  placed_.rows = rows;
  placed_blocks_.assign(blocks_.size(), shared);
  placed_x_.clear();
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer)
    for (const auto view : kKept) placed_blocks_[layer].*view = (blocks_[layer].*view).slice_rows(used_.rows, rows);
  for (const View& x : x_) placed_x_.push_back(x.slice_rows(used_.rows, rows));
  return ForwardMemory{placed_blocks_, placed_x_};
}

std::int32_t KeptActivations::add(std::int32_t parent, std::int32_t token) {
  if (placed_.rows == 0) return PrefixTree::kAbsent;
  placed_.rows -= 1;
  logits_of_.push_back(-1);
  return tree_.add(parent, token, static_cast<std::int32_t>(used_.rows++));
}

View KeptActivations::place_logits(std::int64_t count) {
  placed_.logits = count <= capacity_.logits - used_.logits ? count : 0;
  return placed_.logits > 0 ? logits_.slice_rows(used_.logits, count) : View{};
}

void KeptActivations::add_logits(std::int32_t row) {
  if (placed_.logits == 0) return;
  placed_.logits -= 1;
  const auto place = static_cast<std::int32_t>(used_.logits++);
  if (row >= 0) logits_of_[row] = place;
}

std::vector<std::int32_t> KeptActivations::rows_of(const TokenForest& forest) const {
  std::vector<std::int32_t> rows(static_cast<std::size_t>(forest.size()), PrefixTree::kAbsent);
  if (tree_.empty()) return rows;
  for (const Segment& segment : forest.segments()) {
    std::int32_t row = PrefixTree::kRoot;
    if (segment.parent >= 0) {
      const Segment& parent = forest.segments()[segment.parent];
      row = rows[parent.begin + parent.length - 1];
    }
    for (std::int64_t token = segment.begin; token < segment.begin + segment.length; ++token)
      row = rows[token] = tree_.find(row, forest.tokens()[token]);
  }
  return rows;
}

void KeptActivations::restore(Backend& backend, std::int64_t layer, const std::int32_t* index, const BlockActivations& a) const {
  backend.gather_rows(x_[layer], index, a.x_in);
  for (const auto view : kKept) backend.gather_rows(blocks_[layer].*view, index, a.*view);
}

void KeptActivations::restore_output(Backend& backend, const std::int32_t* index, View x) const {
  backend.gather_rows(x_.back(), index, x);
}

void KeptActivations::restore_logits(Backend& backend, const std::int32_t* index, View logits) const {
  backend.gather_rows(logits_, index, logits);
}

}  // namespace foretoken
