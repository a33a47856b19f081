#include <algorithm>
#include <cmath>

#include "backend/sampling.h"
#include "core/error.h"
#include "engine/kept_rows.h"
#include "engine/state.h"
#include "objective/objective.h"

namespace foretoken {

namespace {

/// The largest of each dimension over the micro-batches of a call: what the work memory is laid out for.
struct Extent {
  std::int64_t rows = 0, pages = 0, head_rows = 0, targets = 0;

  void cover(const PackedBatch& packed) {
    rows = std::max(rows, packed.rows());
    pages = std::max(pages, packed.pages);
    head_rows = std::max(head_rows, static_cast<std::int64_t>(packed.head_rows.size()));
    targets = std::max(targets, static_cast<std::int64_t>(packed.target_index.size()));
  }
};

/// Everything a forward and backward pass holds between them.
struct TrainingMemory {
  std::vector<View> x;                    // (L + 1) of (N, C) A: the residual stream before each block and after the last
  std::vector<BlockActivations> blocks;   // (L), or 1 when blocks are computed again
  void* pages = nullptr;                  // one layer's keys and values: the layers take turns
  View dx;                                // (N, C) A
  Decoder::Gradients gradients;
  Head::Buffers head;
  View logprobs, dlogprobs;               // (1, targets) A

  /// `kept`: sampling has kept the activations of all tokens, so that one x and one block serve all layers, without pages.
  void lay_out(Arena& arena, const Backend& backend, const ModelConfig& config, const AttentionShape& shape, const Extent& extent,
               bool recompute, bool kept) {
    const DType A = backend.accumulation_dtype();
    x.clear();
    for (std::int64_t layer = 0; layer <= (kept ? 0 : config.num_layers); ++layer)
      x.push_back(arena.matrix(A, extent.rows, config.hidden_size));
    blocks.assign(recompute || kept ? 1 : config.num_layers, {});
    for (BlockActivations& block : blocks) block.lay_out(arena, backend, config, extent.rows, true);
    pages = arena.bytes(static_cast<std::size_t>(kept ? 0 : extent.pages) * backend.page_bytes(shape));
    dx = arena.matrix(A, extent.rows, config.hidden_size);
    gradients.lay_out(arena, backend, config, extent.rows);
    head.lay_out(arena, backend, config, std::min(extent.head_rows, Head::chunk_rows(backend, config)), true);
    logprobs = arena.matrix(A, 1, extent.targets);
    dlogprobs = arena.matrix(A, 1, extent.targets);
  }
};

/// One micro-batch through the network and back.
class TrainingPass {
 public:
  TrainingPass(Engine::State& state, Decoder& decoder, const Weights& weights, Objective& objective, double temperature,
               bool recompute, const Control& control)
      : state_(state), backend_(*state.backend), decoder_(decoder), weights_(weights), objective_(objective),
        inverse_temperature_(inverse_temperature(temperature)), recompute_(recompute), control_(control) {}

  /// The forward pass is made where nothing is `kept`.
  void run(const TokenForest& forest, const PackedBatch& packed, const KeptRows& kept, TrainingMemory& memory) {
    state_.uploaded.assign(backend_, packed);
    const DeviceBatch& batch = state_.uploaded.batch();
    const std::int64_t layers = decoder_.config().num_layers, N = packed.rows();

    const auto put = [&](DeviceArray<std::int32_t>& array, const std::vector<std::int32_t>& index) {
      return index.empty() ? nullptr : array.assign(backend_, std::span<const std::int32_t>(index));
    };
    const std::int32_t* const rows = put(kept_rows_, kept.rows);
    logits_ = put(kept_logits_, kept.logits);
    if (rows) state_.kept.restore_output(backend_, rows, memory.x.back().slice_rows(0, N));
    else decoder_.forward(weights_, batch, memory.pages, 0, {memory.blocks, memory.x}, control_);

    const View dx = memory.dx.slice_rows(0, N);
    backend_.fill_zero(dx);
    head(forest, packed, memory, dx);

    Decoder::Gradients g = memory.gradients.first_rows(N);
    if (g.dx_t) backend_.convert(dx, g.dx_t);
    for (std::int64_t layer = layers; layer-- > 0;) {
      control_.check();
      BlockActivations a = activations(memory, layer, N);
      if (rows) {
        state_.kept.restore(backend_, layer, rows, a);
        decoder_.block_restore(weights_, layer, a);
      } else if (recompute_) {
        // The block's output goes where its successor read it: the same bits again.
        decoder_.block_forward(weights_, layer, batch, memory.pages, a, memory.x[layer + 1].slice_rows(0, N));
      }
      decoder_.block_backward(weights_, state_.parameters, state_.gradients, layer, batch, state_.uploaded.paths(), a, g, dx);
    }
    backend_.embed_backward(batch.tokens, dx, state_.gradients[state_.parameters.embedding]);
  }

 private:
  BlockActivations activations(const TrainingMemory& memory, std::int64_t layer, std::int64_t rows) const {
    BlockActivations a = memory.blocks[static_cast<std::size_t>(layer) % memory.blocks.size()];
    a.x_in = memory.x[static_cast<std::size_t>(layer) % memory.x.size()];
    return a.first_rows(rows);
  }

  /// Chunks of head rows: logits, log-probs, the objective's gradients, and back into dx.
  void head(const TokenForest& forest, const PackedBatch& packed, const TrainingMemory& memory, View dx) {
    const std::int64_t rows = static_cast<std::int64_t>(packed.head_rows.size());
    const std::int64_t chunk = std::max<std::int64_t>(memory.head.logits.rows, 1);
    if (objective_.needs_sequences())
      for (std::int64_t begin = 0; begin < rows; begin += chunk) {
        const ChunkValues values = chunk_forward(forest, packed, memory, begin, std::min(rows, begin + chunk));
        objective_.observe(values.index, values.logprobs);
      }
    for (std::int64_t begin = 0; begin < rows; begin += chunk) {
      control_.check();
      const std::int64_t end = std::min(rows, begin + chunk);
      const ChunkValues values = chunk_forward(forest, packed, memory, begin, end);
      chunk_backward(packed, memory, begin, end, values, dx);
    }
  }

  struct ChunkValues {
    std::span<const std::int64_t> index;  // forest tokens
    std::vector<double> logprobs;         // per target
    std::vector<double> entropies;        // per target: its row's
  };

  ChunkValues chunk_forward(const TokenForest& forest, const PackedBatch& packed, const TrainingMemory& memory,
                            std::int64_t begin, std::int64_t end) {
    const Head::Buffers b = memory.head.first_rows(end - begin);
    const View x = memory.x.back().slice_rows(0, packed.rows());
    if (logits_) {
      state_.head.input(weights_, x, state_.uploaded.head_rows() + begin, b);
      state_.kept.restore_logits(backend_, logits_ + begin, b.logits);
    } else {
      state_.head.logits(weights_, x, state_.uploaded.head_rows() + begin, b);
    }
    const std::int64_t first = packed.target_begin[begin], last = packed.target_begin[end];
    backend_.logprob_forward(b.logits, inverse_temperature_, state_.uploaded.targets(begin), memory.logprobs, b.lse, b.entropy,
                             {}, 0);
    ChunkValues values;
    values.index = std::span(packed.target_index).subspan(first, last - first);
    values.logprobs = download_values(backend_, memory.logprobs.slice_cols(first, last - first));
    const std::vector<double> entropy = download_values(backend_, b.entropy);
    for (std::int64_t row = begin; row < end; ++row)
      values.entropies.insert(values.entropies.end(), packed.target_begin[row + 1] - packed.target_begin[row],
                              entropy[row - begin]);
    for (std::size_t i = 0; i < values.logprobs.size(); ++i)
      if (!std::isfinite(values.logprobs[i])) {
        const std::int32_t segment = forest.segment_of(values.index[i]);
        fail(ErrorCode::NonFinite, "the log-prob of token ", values.index[i] - forest.segments()[segment].begin, " of segment ",
             segment, " is not a finite number: the weights have diverged or hold NaN. No weight was changed");
      }
    return values;
  }

  void chunk_backward(const PackedBatch& packed, const TrainingMemory& memory, std::int64_t begin, std::int64_t end,
                      const ChunkValues& values, View dx) {
    std::vector<double> dlogprobs(values.logprobs.size()), dentropies(values.logprobs.size());
    objective_.evaluate(values.index, values.logprobs, values.entropies, dlogprobs, dentropies);
    std::vector<double> drow(static_cast<std::size_t>(end - begin), 0.0);  // a row's targets share its entropy
    const std::int64_t first = packed.target_begin[begin];
    for (std::int64_t row = begin; row < end; ++row)
      for (std::int64_t t = packed.target_begin[row]; t < packed.target_begin[row + 1]; ++t)
        drow[row - begin] += dentropies[t - first];
    const Head::Buffers b = memory.head.first_rows(end - begin);
    upload_values(backend_, dlogprobs, memory.dlogprobs.slice_cols(first, static_cast<std::int64_t>(dlogprobs.size())));
    upload_values(backend_, drow, b.dentropy);
    backend_.logprob_backward(b.logits, inverse_temperature_, state_.uploaded.targets(begin), b.lse, b.entropy,
                              memory.dlogprobs, b.dentropy, b.dlogits);
    state_.head.backward(weights_, state_.parameters, state_.gradients, state_.uploaded.head_rows() + begin, b, dx);
  }

  Engine::State& state_;
  Backend& backend_;
  Decoder& decoder_;
  const Weights& weights_;
  Objective& objective_;
  double inverse_temperature_;
  bool recompute_;
  const Control& control_;
  DeviceArray<std::int32_t> kept_rows_, kept_logits_;
  const std::int32_t* logits_ = nullptr;  // (head rows) where the micro-batch's logits are kept; null: they are computed
};

}  // namespace

std::size_t training_bytes(const Engine::State& state, std::int64_t rows, bool kept) {
  AttentionShape shape;
  shape.heads = static_cast<int>(state.config.num_heads);
  shape.kv_heads = static_cast<int>(state.config.num_kv_heads);
  shape.head_dim = static_cast<int>(state.config.head_dim);
  const std::int64_t P = state.backend->page_positions();
  TrainingMemory memory;
  Arena plan;
  memory.lay_out(plan, *state.backend, state.config, shape, {rows, (rows + P - 1) / P, rows, rows}, state.options.recompute, kept);
  return plan.used();
}

AccumulateResult Engine::accumulate(const TokenForest& forest, const std::vector<LossTerm>& terms,
                                    const AccumulateOptions& options, const Control& control) {
  State& state = *state_;
  if (!(options.temperature > 0) || !std::isfinite(options.temperature))
    fail(ErrorCode::InvalidArgument, "temperature must be a positive number, not ", options.temperature);
  Decoder& decoder = state.decoder_for(forest);
  Objective objective(forest, terms);
  const bool recompute = options.recompute.value_or(state.options.recompute);
  const std::int64_t budget = options.batch_tokens > 0 ? options.batch_tokens : state.options.batch_tokens;

  std::vector<PackedBatch> batches;
  std::vector<KeptRows> kept;
  const std::vector<std::int32_t> row_of_token = state.kept.rows_of(forest);
  bool all_kept = true;
  Extent extent;
  for (const MicroBatch& micro_batch : plan_micro_batches(forest, objective.wanted(), budget)) {
    batches.push_back(pack(forest, micro_batch, state.backend->page_positions(), objective.predicted()));
    extent.cover(batches.back());
    kept.push_back(find_kept(state.kept, row_of_token, batches.back()));
    all_kept = all_kept && !kept.back().rows.empty();
  }

  const Weights& weights = state.trainable_weights();
  state.make_gradients();
  TrainingMemory memory;
  const auto lay_out = [&](Arena arena) {
    memory.lay_out(arena, *state.backend, state.config, decoder.attention_shape(0), extent, recompute, all_kept);
    return arena.used();
  };
  void* block = state.work.reserve(lay_out(Arena()));
  if (state.kept.rows() == 0) {  // what was kept may have had to make room
    kept.assign(kept.size(), {});
    all_kept = false;
    block = state.work.reserve(lay_out(Arena()));
  }
  lay_out(Arena(block));

  AccumulateResult result;
  std::int64_t total = 0;
  for (const PackedBatch& packed : batches) total += packed.rows();
  TrainingPass pass(state, decoder, weights, objective, options.temperature, recompute, control);
  state.gradients_empty = false;
  for (std::size_t i = 0; i < batches.size(); ++i) {
    const PackedBatch& packed = batches[i];
    control.check();
    pass.run(forest, packed, kept[i], memory);
    result.tokens += packed.rows();
    if (!kept[i].rows.empty()) result.kept_tokens += packed.rows();
    result.micro_batches += 1;
    control.report(result.tokens, total);
  }
  state.backend->synchronize();
  result.terms = objective.statistics();
  for (const TermStatistics& term : result.terms) result.loss += term.loss;
  return result;
}

}  // namespace foretoken
