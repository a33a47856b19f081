#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/sampling.h"
#include "core/error.h"
#include "engine/state.h"

namespace foretoken {

namespace {

/// A forward pass keeps one block's activations and two residual streams.
struct ScoringMemory {
  View x[2];                 // (N, C) A
  BlockActivations block;
  void* pages = nullptr;     // one layer's keys and values
  Head::Buffers head;
  View logprobs;             // (1, targets) A

  void lay_out(Arena& arena, const Backend& backend, const Decoder& decoder, std::int64_t rows, std::int64_t pages_count,
               std::int64_t head_rows, std::int64_t targets) {
    const ModelConfig& config = decoder.config();
    for (View& view : x) view = arena.matrix(backend.accumulation_dtype(), rows, config.hidden_size);
    block.lay_out(arena, backend, config, rows, false);
    pages = arena.bytes(static_cast<std::size_t>(pages_count) * backend.page_bytes(decoder.attention_shape(0)));
    head.lay_out(arena, backend, config, std::min(head_rows, Head::chunk_rows(backend, config)), false);
    logprobs = arena.matrix(backend.accumulation_dtype(), 1, targets);
  }
};

class ScoringPass {
 public:
  ScoringPass(Engine::State& state, Decoder& decoder, const ScoreOptions& options, ScoreResult& result)
      : state_(state), backend_(*state.backend), decoder_(decoder), weights_(state.weights(options.weights)),
        options_(options), result_(result) {}

  void run(const PackedBatch& packed, const ScoringMemory& memory, const Control& control) {
    state_.uploaded.assign(backend_, packed);
    const View x = decoder_.forward(weights_, state_.uploaded.batch(), memory.pages, 0, {{&memory.block, 1}, memory.x}, control);
    const std::int64_t rows = static_cast<std::int64_t>(packed.head_rows.size());
    const std::int64_t chunk = std::max<std::int64_t>(memory.head.logits.rows, 1);
    for (std::int64_t begin = 0; begin < rows; begin += chunk) {
      control.check();
      head(packed, memory, x, begin, std::min(rows, begin + chunk));
    }
  }

 private:
  void head(const PackedBatch& packed, const ScoringMemory& memory, View x, std::int64_t begin, std::int64_t end) {
    const Head::Buffers b = memory.head.first_rows(end - begin);
    state_.head.logits(weights_, x, state_.uploaded.head_rows() + begin, b);
    const std::int64_t first = packed.target_begin[begin], last = packed.target_begin[end];
    backend_.logprob_forward(b.logits, inverse_temperature(options_.temperature), state_.uploaded.targets(begin), memory.logprobs, b.lse,
                             b.entropy, options_.top_entropy > 0 ? b.top_entropy : View{}, options_.top_entropy);
    const std::vector<float> logprobs = download_floats(backend_, memory.logprobs.slice_cols(first, last - first));
    const std::vector<float> entropy = download_floats(backend_, b.entropy);
    const std::vector<float> top_entropy =
        options_.top_entropy > 0 ? download_floats(backend_, b.top_entropy) : std::vector<float>{};
    const std::vector<std::int32_t> argmax = options_.argmax ? most_likely(b) : std::vector<std::int32_t>{};
    for (std::int64_t row = begin; row < end; ++row) {
      for (std::int64_t t = packed.target_begin[row]; t < packed.target_begin[row + 1]; ++t) {
        const std::int64_t token = packed.target_index[t];
        result_.logprobs[token] = logprobs[t - first];
        result_.entropy[token] = entropy[row - begin];
        if (!top_entropy.empty()) result_.top_entropy[token] = top_entropy[row - begin];
        if (!argmax.empty()) result_.argmax[token] = argmax[row - begin];
      }
      const std::int64_t token = packed.forest_index[packed.head_rows[row]];
      for (std::size_t i = 0; i < options_.logit_tokens.size(); ++i)
        if (options_.logit_tokens[i] == token) {
          const std::vector<float> logits = download_floats(backend_, b.logits.slice_rows(row - begin, 1));
          std::copy(logits.begin(), logits.end(), result_.logits.begin() + static_cast<std::ptrdiff_t>(i * logits.size()));
        }
    }
  }

  std::vector<std::int32_t> most_likely(const Head::Buffers& b) {
    SampleRow greedy;
    greedy.temperature = 0;
    const std::int64_t n = b.logits.rows;
    const std::vector<SampleRow> rows(static_cast<std::size_t>(n), greedy);
    std::int32_t* tokens = argmax_.reserve(backend_, static_cast<std::size_t>(n));
    // The log-probs are not wanted; lse has been read and serves as their place.
    backend_.sample(b.logits, greedy_.assign(backend_, std::span<const SampleRow>(rows)), {}, tokens, b.lse);
    std::vector<std::int32_t> result(static_cast<std::size_t>(n));
    backend_.download(result.data(), tokens, result.size() * sizeof(std::int32_t));
    return result;
  }

  Engine::State& state_;
  Backend& backend_;
  Decoder& decoder_;
  const Weights& weights_;
  const ScoreOptions& options_;
  ScoreResult& result_;
  DeviceArray<SampleRow> greedy_;
  DeviceArray<std::int32_t> argmax_;
};

}  // namespace

ScoreResult Engine::score(const TokenForest& forest, const ScoreOptions& options, const Control& control) {
  State& state = *state_;
  if (!(options.temperature > 0) || !std::isfinite(options.temperature))
    fail(ErrorCode::InvalidArgument, "temperature must be a positive number, not ", options.temperature);
  if (options.top_entropy < 0 || options.top_entropy > 64)
    fail(ErrorCode::InvalidArgument, "topEntropy must be between 0 and 64, not ", options.top_entropy);
  for (const std::int32_t token : options.logit_tokens)
    if (token < 0 || token >= forest.size())
      fail(ErrorCode::InvalidArgument, "logits are asked for token ", token, ", but the forest has ", forest.size(), " tokens");
  Decoder& decoder = state.decoder_for(forest);

  std::vector<std::int32_t> extra_rows = options.logit_tokens;
  std::sort(extra_rows.begin(), extra_rows.end());
  std::vector<PackedBatch> batches;
  std::int64_t rows = 0, pages = 0, head_rows = 0, targets = 0, total = 0;
  for (const MicroBatch& micro_batch : plan_micro_batches(forest, {}, state.options.batch_tokens)) {
    const PackedBatch& packed =
        batches.emplace_back(pack(forest, micro_batch, state.backend->page_positions(), {}, extra_rows));
    rows = std::max(rows, packed.rows());
    pages = std::max(pages, packed.pages);
    head_rows = std::max(head_rows, static_cast<std::int64_t>(packed.head_rows.size()));
    targets = std::max(targets, static_cast<std::int64_t>(packed.target_index.size()));
    total += packed.rows();
  }

  ScoreResult result;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto N = static_cast<std::size_t>(forest.size());
  result.logprobs.assign(N, nan);
  result.entropy.assign(N, nan);
  if (options.top_entropy > 0) result.top_entropy.assign(N, nan);
  if (options.argmax) result.argmax.assign(N, -1);
  result.logits.resize(options.logit_tokens.size() * static_cast<std::size_t>(state.config.vocab_size));

  ScoringPass pass(state, decoder, options, result);
  ScoringMemory memory;
  Arena plan;
  memory.lay_out(plan, *state.backend, decoder, rows, pages, head_rows, targets);
  Arena arena(state.work.reserve(plan.used()));
  memory.lay_out(arena, *state.backend, decoder, rows, pages, head_rows, targets);
  std::int64_t done = 0;
  for (const PackedBatch& packed : batches) {
    control.check();
    pass.run(packed, memory, control);
    done += packed.rows();
    control.report(done, total);
  }
  return result;
}

}  // namespace foretoken
