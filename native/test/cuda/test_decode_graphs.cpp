#include <algorithm>
#include <cstring>
#include <set>

#include "backend/cuda/cuda_backend.h"
#include "core/error.h"
#include "engine/initialise.h"
#include "rollout/rollout_scheduler.h"
#include "test/cuda/emulated.h"
#include "test/test.h"

// Steps of decoding that a device has recorded and repeats (rollout/decode_step.h).
namespace foretoken::test {
namespace {

bool same_rollouts(const std::vector<Rollout>& a, const std::vector<Rollout>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const Rollout& x, const Rollout& y) {
    return x.segment == y.segment && x.stop == y.stop && x.tokens == y.tokens && x.logprobs.size() == y.logprobs.size() &&
           std::memcmp(x.logprobs.data(), y.logprobs.data(), x.logprobs.size() * sizeof(float)) == 0;
  });
}

/// some_forest and a context that fills the store's first page.
TokenForest forest_of(std::int64_t vocabulary) {
  TokenForest forest = some_forest(vocabulary);
  forest.add(-1, some_tokens(70, vocabulary, 50));
  return forest;
}

/// Contexts of many lengths, paths that come to a second page and to a third, rollouts that stop early or not before
/// their sixth token, filters.
SampleOptions some_options() {
  SampleOptions options;
  options.from = {10, 0, 1, 3, 7, 9};
  options.n = 5;
  options.max_tokens = 60;
  options.min_tokens = 6;
  options.temperature = 0.9;
  options.top_p = 0.97;
  options.seed = 4;
  options.banned = {1, 2};
  options.stop.tokens = {3, 8};
  return options;
}

TEST("decode graphs: rollouts are those without graphs, in one wave, in many, and with places that come free") {
  const auto check = [](const TinyModel& model, DType dtype) {
    EngineOptions small = emulated(dtype);
    small.cache_tokens = 64 * 7;
    const auto whole = tiny_engine(model, emulated(dtype)), waves = tiny_engine(model, small);
    std::vector<Rollout> expected;
    const TokenForest forest = forest_of(whole->config().vocab_size);
    SampleOptions options = some_options();
    options.n = 3;
    {
      const EnvironmentVariable off("FORETOKEN_CUDA_GRAPHS", "0");
      expected = tiny_engine(model, emulated(dtype))->sample(forest, options, {}).rollouts;
    }
    CHECK(same_rollouts(whole->sample(forest, options, {}).rollouts, expected));
    CHECK(same_rollouts(waves->sample(forest, options, {}).rollouts, expected));
    options.max_sequences = 5;  // in the same engine once more
    CHECK(same_rollouts(whole->sample(forest, options, {}).rollouts, expected));
  };
  check(tiny_models()[1], DType::Float32);
  if (kSanitized) return;
  check(tiny_models()[0], DType::BFloat16);
  check(tiny_models()[2], DType::BFloat16);
}

TEST("decode graphs: the number of rows is rounded up by half at most, or to a multiple of 64") {
  std::set<std::int64_t> some;
  for (std::int64_t rows = 1; rows <= 1000; ++rows) {
    const std::int64_t rounded = DecodeStep::rounded_rows(rows);
    CHECK(rounded >= rows);
    CHECK(2 * rounded < 3 * rows + 6);
    CHECK_EQ(DecodeStep::rounded_rows(rounded), rounded);
    some.insert(rounded);
  }
  CHECK(some.size() < 30);
}

/// An emulated device that notes what becomes of sequences, which rows it passes over in attention, and what else is asked
/// of it once decoding has begun.
class Watched final : public cuda::CudaBackend {
 public:
  explicit Watched(DType dtype) : CudaBackend(cuda::make_host_device(cuda::ThreadOrder::Random), dtype) {}

  Sequence begin_sequence(std::uint64_t key) override {
    decodes = true;
    const Sequence what = CudaBackend::begin_sequence(key);
    ++times[static_cast<int>(what)];
    rows = static_cast<std::int64_t>(key >> 20 & 0xfffff);
    stride = static_cast<std::int64_t>(key & 0xfffff);
    return what;
  }
  /// Comes after every step.
  void start_download(const void* device, std::size_t bytes) override {
    CudaBackend::start_download(device, bytes);
    started.emplace(device, bytes);
    Arena arena(inputs);
    const DecodeInputs in = DecodeInputs::lay_out(arena, rows, stride);
    for (std::int64_t i = 0; i < rows; ++i)
      if (in.draws[i].draws && in.runs[i].count == 0) ended.emplace(in.draws[i].rollout, in.draws[i].position);
  }

  void download(void* host, const void* device, std::size_t bytes) override {
    CudaBackend::download(host, device, bytes);
    waits += decodes && started.erase({device, bytes}) == 0;
  }
  void synchronize() override {
    CudaBackend::synchronize();
    waits += decodes;
  }
  void upload(void* device, const void* host, std::size_t bytes) override {
    CudaBackend::upload(device, host, bytes);
    uploads += decodes;
  }
  void* allocate(std::size_t bytes) override {
    allocations += decodes;
    return CudaBackend::allocate(bytes);
  }

  void* inputs = nullptr;  // of steps
  std::int64_t rows = 0, stride = 0;
  int times[3] = {};                                   // by Sequence
  bool decodes = false;                                // the first step has begun
  std::set<std::pair<const void*, std::size_t>> started;  // downloads
  int waits = 0, uploads = 0, allocations = 0;         // waits: for all that has been queued
  std::set<std::pair<std::uint32_t, std::uint32_t>> ended;  // rollout and the number of tokens it had when it was passed over
};

/// Sampling without an engine, so that a backend of the test's own can be used.
SampleResult sample(Watched& backend, const TinyModel& model, const TokenForest& forest, const SampleOptions& options,
                    std::int64_t sequences, std::int64_t head_rows) {
  const ModelConfig config = parse_config(model.config, "config");
  const ModelParameters parameters(config);
  const ParameterStore masters(backend, parameters.specs, DType::Float32, DType::Float32);
  Initialisation initialisation;
  initialisation.seed = 3;
  initialisation.embedding = 1;
  initialisation.head = 0.3;
  initialisation.projection = 1;
  initialisation.output_projection = 0.7;
  initialisation.scale_by_fan_in = true;
  std::vector<float> values;
  for (std::size_t i = 0; i < parameters.specs.size(); ++i) {
    initialise(config, parameters.specs[i], static_cast<std::uint32_t>(i), initialisation, values);
    backend.upload(masters[i].data, values.data(), values.size() * sizeof(float));
  }
  const Weights weights(backend, config, parameters, masters, false);
  const Decoder decoder(backend, config, 192);
  const Head head(backend, config);

  const CachedForwardRows rows{64, head_rows, sequences, 192};
  CachedForwardMemory memory;
  Arena plan;
  memory.lay_out(plan, backend, config, rows);
  const Buffer work(backend, plan.used());
  Arena arena(work.data());
  memory.lay_out(arena, backend, config, rows);
  backend.inputs = memory.decode_inputs;

  const std::int64_t P = backend.page_positions(), pages = RolloutScheduler::most_pages(forest, options, P);
  PageStore store;
  store.page_positions = P;
  store.spare_page = static_cast<std::int32_t>(pages);
  store.layer_bytes = static_cast<std::size_t>(pages + 1) * backend.page_bytes(decoder.attention_shape(0));
  const Buffer page_memory(backend, store.layer_bytes * static_cast<std::size_t>(config.num_layers));
  store.data = page_memory.data();
  CachedForward forward(backend, decoder, head, weights, store, memory);
  DecodeStep step(backend, decoder, head, weights, store, memory);
  return RolloutScheduler(forest, options, 64, sequences, pages, P, nullptr)
      .run(backend, forward, step, StopMatcher(options.stop, {}, {}), {});
}

TEST("decode graphs: most steps are repetitions, with the bits of direct calls, also where logits come in chunks") {
  const TinyModel& model = tiny_models()[1];
  const SampleOptions options = some_options();
  const TokenForest forest = forest_of(50);
  std::vector<Rollout> expected;
  {
    const EnvironmentVariable off("FORETOKEN_CUDA_GRAPHS", "0");
    Watched backend(DType::BFloat16);
    expected = sample(backend, model, forest, options, 30, 30).rollouts;
    CHECK_EQ(backend.times[static_cast<int>(Sequence::Done)], 0);
  }
  for (const auto& [sequences, head_rows] : {std::pair{30, 30}, {30, 7}, {7, 3}}) {
    Watched backend(DType::BFloat16);
    const SampleResult result = sample(backend, model, forest, options, sequences, head_rows);
    CHECK(same_rollouts(result.rollouts, expected));
    const auto [run, recorded, repeated] = backend.times;
    CHECK_EQ(run + recorded + repeated, result.statistics.decode_steps);
    CHECK(recorded > 2);
    CHECK(repeated > recorded);
  }
}

TEST("decode graphs: in a step the host uploads once, allocates nothing, and waits for the tokens before it alone") {
  for (const char* graphs : {"0", "1"}) {
    const EnvironmentVariable setting("FORETOKEN_CUDA_GRAPHS", graphs);
    Watched backend(DType::BFloat16);
    const SampleResult result = sample(backend, tiny_models()[1], forest_of(50), some_options(), 30, 30);
    CHECK_EQ(result.statistics.waves, 1);
    CHECK(result.statistics.decode_steps > 10);
    CHECK_EQ(backend.uploads, result.statistics.decode_steps - 1);  // that of the first step came before
    CHECK_EQ(backend.allocations, 0);
    CHECK_EQ(backend.waits, 0);
  }
}

TEST("decode graphs: the device passes over the rollouts that ended with a stop token, and over no other") {
  for (const char* graphs : {"0", "1"})
    for (const int sequences : {4, 30}) {
      const EnvironmentVariable setting("FORETOKEN_CUDA_GRAPHS", graphs);
      Watched backend(DType::Float32);
      const TinyModel& model = tiny_models()[1];
      SampleOptions options = some_options();
      options.max_tokens = 20;
      const SampleResult result = sample(backend, model, forest_of(50), options, sequences, sequences);
      // A first token is seen by the host at once, and after the last possible one there is no further step.
      std::set<std::pair<std::uint32_t, std::uint32_t>> expected;
      for (std::size_t r = 0; r < result.rollouts.size(); ++r) {
        const auto length = static_cast<std::int32_t>(result.rollouts[r].tokens.size());
        if (result.rollouts[r].stop == StopReason::Token && length > 1 && length < options.max_tokens)
          expected.emplace(r, length);
      }
      CHECK(expected.size() > 4);
      CHECK(expected.size() < result.rollouts.size());
      CHECK(backend.ended == expected);
    }
}

}  // namespace
}  // namespace foretoken::test
