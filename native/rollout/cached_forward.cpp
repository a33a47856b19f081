#include "rollout/cached_forward.h"

#include <algorithm>
#include <bit>
#include <numeric>

namespace foretoken {

namespace {
template <typename T>
const T* put(DeviceArray<T>& array, Backend& backend, const std::vector<T>& values) {
  return array.assign(backend, std::span<const T>(values));
}
}  // namespace

void CachedForwardMemory::lay_out(Arena& arena, const Backend& backend, const ModelConfig& config,
                                  const CachedForwardRows& rows) {
  for (View& view : x) view = arena.matrix(backend.accumulation_dtype(), rows.rows, config.hidden_size);
  block.lay_out(arena, backend, config, rows.rows, false);
  head.lay_out(arena, backend, config, std::min(rows.head_rows, Head::chunk_rows(backend, config)), false);
  decode_rows = rows.sequences;
  const std::int64_t P = backend.page_positions(), pages = (rows.longest_path + P - 1) / P;
  Arena inputs;
  DecodeInputs::lay_out(inputs, decode_rows, static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(pages))));
  decode_inputs = arena.bytes(inputs.used());
  decode_tokens = static_cast<std::int32_t*>(arena.bytes(static_cast<std::size_t>(decode_rows) * sizeof(std::int32_t)));
}

void CachedForward::run(const CachedBatch& batch, KeptActivations* kept, const Control& control) {
  const std::int64_t N = batch.rows(), layers = decoder_.config().num_layers;
  std::vector<std::int32_t> tables;
  std::size_t stride = 0;
  for (const auto& table : batch.tables) stride = std::max(stride, table.size());
  for (const auto& table : batch.tables) {
    tables.insert(tables.end(), table.begin(), table.end());
    tables.resize(tables.size() + stride - table.size(), 0);
  }

  DeviceBatch device;
  device.rows = N;
  device.tokens = put(tokens_, backend_, batch.tokens);
  device.positions = put(positions_, backend_, batch.positions);
  device.paths.runs = put(runs_, backend_, batch.runs);
  device.paths.runs_count = static_cast<std::int64_t>(batch.runs.size());
  for (const Run& run : batch.runs) {
    device.paths.longest_run = std::max<std::int64_t>(device.paths.longest_run, run.count);
    device.paths.longest_path = std::max(device.paths.longest_path, std::int64_t{run.position} + run.count);
  }
  device.paths.tables = put(tables_, backend_, tables);
  device.paths.table_stride = static_cast<std::int64_t>(stride);
  const RowSlots writes = slots_by_row(batch.writes, N);
  device.writes = {put(write_begin_, backend_, writes.row_begin), put(write_slots_, backend_, writes.slots)};
  if (!batch.copy_from.empty())
    backend_.cache_copy(put(copy_from_, backend_, batch.copy_from), put(copy_to_, backend_, batch.copy_to),
                        static_cast<std::int64_t>(batch.copy_from.size()), decoder_.attention_shape(0), store_.data, layers,
                        store_.layer_bytes);

  const std::optional<ForwardMemory> place = kept ? kept->place(N, memory_.block) : std::nullopt;

  // In prefill few rows have a token to draw: the last block computes only them, and x_ holds them alone. Where activations
  // are kept it computes all.
  const auto wanted_count = static_cast<std::int64_t>(batch.head_rows.size());
  const bool few = wanted_count < N && !place;
  WantedRows wanted;
  if (few) {
    std::vector<Run> runs;
    std::vector<bool> is_wanted(static_cast<std::size_t>(N));
    for (const std::int32_t row : batch.head_rows) is_wanted[row] = true;
    for (const Run& run : batch.runs)
      for (std::int32_t row = run.row; row < run.row + run.count; ++row)
        if (is_wanted[row]) runs.push_back({row, 1, run.position + row - run.row, run.table});
    wanted.rows = put(wanted_rows_, backend_, batch.head_rows);
    wanted.count = wanted_count;
    wanted.paths = device.paths;
    wanted.paths.runs = put(wanted_runs_, backend_, runs);
    wanted.paths.runs_count = static_cast<std::int64_t>(runs.size());
    wanted.paths.longest_run = 1;
    std::vector<std::int32_t> in_order(batch.head_rows.size());
    std::iota(in_order.begin(), in_order.end(), 0);
    put(head_rows_, backend_, in_order);
  } else {
    put(head_rows_, backend_, batch.head_rows);
  }
  x_ = decoder_.forward(weights_, device, store_.data, store_.layer_bytes, place.value_or(memory_.forward()), control,
                        few ? &wanted : nullptr);
}

View CachedForward::logits(std::int64_t begin, std::int64_t count, KeptActivations* kept) {
  Head::Buffers b = memory_.head.first_rows(count);
  if (const View place = kept ? kept->place_logits(count) : View{}) b.logits = place;
  head_.logits(weights_, x_, head_rows_.data() + begin, b);
  return b.logits;
}

}  // namespace foretoken
