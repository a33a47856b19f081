#include "engine/memory.h"
#include "test/cuda/emulated.h"
#include "test/engine/tiny_models.h"
#include "test/test.h"

namespace foretoken::test {
namespace {

std::size_t item(const std::vector<MemoryItem>& plan, const std::string& name) {
  for (const MemoryItem& item : plan)
    if (item.name == name) return item.bytes;
  return 0;
}

/// What is in a plan for no work at all.
std::size_t scratch_held(const Engine& engine) {
  MemoryPlanOptions nothing;
  nothing.training_tokens = 0;
  return item(engine.memory_plan(nothing), "backend scratch");
}

void check_plan(const EngineOptions& options, const TinyModel& model, std::size_t planned, std::size_t held) {
  if (held <= planned && planned <= 2 * held) return;
  fail_check(__FILE__, __LINE__, options.device, ", ", name_of(options.dtype), ", ", options.threads, " threads, ", model.name, ": ", held,
             " bytes of scratch were held, planned were ", planned);
}

std::vector<EngineOptions> engines() {
  return {cpu(DType::Float32, 1), cpu(DType::Float32, 3), cpu(DType::BFloat16), emulated(DType::Float32),
          emulated(DType::BFloat16)};
}

TEST("memory plan: a training step takes no more scratch than was planned, and not a fraction of it") {
  for (const EngineOptions& options : engines())
    for (const TinyModel& model : tiny_models()) {
      const auto engine = tiny_engine(model, options);
      const TokenForest forest = some_forest(engine->config().vocab_size);
      MemoryPlanOptions work;
      work.training_tokens = forest.size();
      const std::size_t planned = item(engine->memory_plan(work), "backend scratch");
      engine->accumulate(forest, {CrossEntropyTerm{}}, {}, {});
      engine->step({});
      check_plan(options, model, planned, scratch_held(*engine));
    }
}

TEST("memory plan: the RoPE table of long paths is in it") {
  const auto engine = tiny_engine(tiny_models().front(), cpu(DType::Float32));
  const auto longest = static_cast<std::int64_t>(engine->config().max_position_embeddings);
  MemoryPlanOptions nothing, work;
  nothing.training_tokens = 0;
  work.training_tokens = longest;
  const std::size_t planned = item(engine->memory_plan(work), "RoPE table");
  CHECK_EQ(item(engine->memory_plan(nothing), "RoPE table"), 0u);
  TokenForest forest;
  forest.add(-1, some_tokens(longest, engine->config().vocab_size, 0));
  engine->score(forest, {}, {});
  CHECK_EQ(item(engine->memory_plan(nothing), "RoPE table"), planned);
  CHECK(planned >= static_cast<std::size_t>(longest * engine->config().head_dim) * sizeof(float));
}

TEST("memory plan: sampling takes no more scratch than was planned, and not a fraction of it") {
  for (EngineOptions options : engines())
    for (const TinyModel& model : tiny_models()) {
      options.batch_tokens = 70;
      const auto engine = tiny_engine(model, options);
      TokenForest forest;
      SampleOptions sample;
      // A rollout alone is where a GPU divides the path among its multiprocessors.
      sample.from.push_back(forest.add(-1, some_tokens(70, engine->config().vocab_size, 0)));
      sample.n = 1;
      sample.max_tokens = 9;
      sample.banned = {1};
      MemoryPlanOptions work;
      work.training_tokens = 0;
      work.contexts = 1;
      work.context_tokens = 70;
      work.new_tokens = 9;
      const std::size_t planned = item(engine->memory_plan(work), "backend scratch");
      engine->sample(forest, sample, {});
      check_plan(options, model, planned, scratch_held(*engine));
    }
}

TEST("a budget asks for what is not needed to be given back before it refuses") {
  MemoryBudget budget(100, [&] { budget.hold("spare", 0); });
  budget.hold("spare", 60);
  budget.hold("first", 40);
  CHECK_EQ(budget.held(), std::size_t{100});
  budget.hold("first", 80);
  CHECK_EQ(budget.held(), std::size_t{80});
  CHECK_FAILS(ErrorCode::OutOfMemory, budget.hold("second", 30));
  CHECK_EQ(budget.held(), std::size_t{80});
}

}  // namespace
}  // namespace foretoken::test
