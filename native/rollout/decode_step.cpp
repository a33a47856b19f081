#include "rollout/decode_step.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <numeric>

namespace foretoken {

DecodeInputs DecodeInputs::lay_out(Arena& arena, std::int64_t rows, std::int64_t table_stride) {
  const auto array = [&]<typename T>(T*& to, std::int64_t count) {
    to = static_cast<T*>(arena.bytes(static_cast<std::size_t>(count) * sizeof(T)));
  };
  DecodeInputs inputs;
  array(inputs.draws, rows);
  array(inputs.runs, rows);
  for (std::int32_t** list : {&inputs.tokens, &inputs.token_from, &inputs.positions, &inputs.slots}) array(*list, rows);
  array(inputs.in_order, rows + 1);
  array(inputs.tables, rows * table_stride);
  return inputs;
}

std::int64_t DecodeStep::rounded_rows(std::int64_t rows) {
  const auto power = static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(rows)));
  if (rows > 128) return (rows + 63) / 64 * 64;
  return power >= 24 && rows <= power / 4 * 3 ? power / 4 * 3 : power;
}

DecodeStep::DecodeStep(Backend& backend, const Decoder& decoder, const Head& head, const Weights& weights,
                       const PageStore& store, const CachedForwardMemory& memory)
    : backend_(backend), decoder_(decoder), head_(head), weights_(weights), store_(store), memory_(memory) {
  static std::atomic<std::uint64_t> objects{0};
  number_ = objects++;
  // At once: memory that grows is released, and the backend then forgets what it has recorded.
  copy_from_.reserve(backend, static_cast<std::size_t>(memory.decode_rows));
  copy_to_.reserve(backend, static_cast<std::size_t>(memory.decode_rows));
}

void DecodeStep::run(const DecodeBatch& batch, const TokenRules& rules, const SampledTokens& sampled, KeptActivations* kept,
                     const Control& control) {
  if (!batch.copy_from.empty())
    backend_.cache_copy(copy_from_.assign(backend_, std::span<const std::int32_t>(batch.copy_from)),
                        copy_to_.assign(backend_, std::span<const std::int32_t>(batch.copy_to)),
                        static_cast<std::int64_t>(batch.copy_from.size()), decoder_.attention_shape(0), store_.data,
                        decoder_.config().num_layers, store_.layer_bytes);

  const std::int64_t P = store_.page_positions;
  std::int64_t rows = batch.rows(), stride = 1;
  for (const auto& table : batch.tables) stride = std::max(stride, static_cast<std::int64_t>(table.size()));
  if (backend_.records()) {
    rows = std::min(rounded_rows(rows), memory_.decode_rows);
    stride = static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(stride)));
  }

  Arena size;
  DecodeInputs::lay_out(size, rows, stride);
  block_.assign(size.used(), std::byte{0});
  Arena host(block_.data()), device_block(memory_.decode_inputs);
  const DecodeInputs to = DecodeInputs::lay_out(host, rows, stride), in = DecodeInputs::lay_out(device_block, rows, stride);
  std::iota(to.in_order, to.in_order + rows + 1, 0);
  for (std::int64_t i = 0; i < rows; ++i) {
    const auto row = static_cast<std::int32_t>(i);
    if (i >= batch.rows()) {
      to.draws[i].draws = false;
      to.runs[i] = {row, 0, 0, row};
      to.token_from[i] = -1;
      to.slots[i] = static_cast<std::int32_t>(store_.spare_page * P + i % P);
      continue;
    }
    const std::int32_t position = batch.positions[i];
    to.draws[i] = batch.draws[i];
    to.runs[i] = {row, 1, position, row};
    to.tokens[i] = batch.tokens[i];
    to.token_from[i] = batch.token_from[i];
    to.positions[i] = position;
    to.slots[i] = static_cast<std::int32_t>(batch.tables[i].back() * P + position % P);
    std::copy(batch.tables[i].begin(), batch.tables[i].end(), to.tables + i * stride);
  }
  backend_.upload(memory_.decode_inputs, block_.data(), block_.size());

  DeviceBatch device;
  device.rows = rows;
  device.tokens = memory_.decode_tokens;
  device.positions = in.positions;
  device.paths = {in.runs, rows, 1, in.tables, stride, stride * P};
  device.writes = {in.in_order, in.slots};
  const std::optional<ForwardMemory> place = kept ? kept->place(rows, memory_.block) : std::nullopt;
  const View logits = place ? kept->place_logits(rows) : View{};
  const std::uint64_t key = number_ << 40 | static_cast<std::uint64_t>(rows) << 20 | static_cast<std::uint64_t>(stride);
  backend_.sequence(key, [&] {
    backend_.select_tokens(in.tokens, sampled.tokens(), in.token_from, rows, rules, memory_.decode_tokens, in.runs);
    const View x = decoder_.forward(weights_, device, store_.data, store_.layer_bytes, place.value_or(memory_.forward()), control);
    for (std::int64_t begin = 0, chunk = memory_.head.logits.rows; begin < rows; begin += chunk) {
      const std::int64_t count = std::min(chunk, rows - begin);
      Head::Buffers b = memory_.head.first_rows(count);
      if (logits) b.logits = logits.slice_rows(begin, count);
      head_.logits(weights_, x, in.in_order + begin, b);
      backend_.sample(b.logits, in.draws + begin, rules, sampled.tokens() + begin, sampled.logprobs().slice_cols(begin, count));
    }
  });
}

}  // namespace foretoken
