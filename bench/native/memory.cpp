// Peak memory of a training step, of rollouts, and of both with activations kept between them, against the plan that the
// engine prints beforehand.
//
//   memory [--shape qwen3-12m] [--dtype bfloat16|float32] [--part train|rollouts|grpo]
//
// One part per process: the kernel only tells the peak since the start.

#include <cstdio>
#include <cstring>
#include <string>

#include "engine/engine.h"
#include "support/shapes.h"

using namespace foretoken;
using bench::random_tokens;

namespace {

/// A field of /proc/self/status in bytes: VmRSS now, VmHWM at its highest.
std::size_t status(const char* field) {
  unsigned long long kilobytes = 0;
  if (std::FILE* file = std::fopen("/proc/self/status", "re")) {
    char line[256];
    while (std::fgets(line, sizeof line, file))
      if (std::strncmp(line, field, std::strlen(field)) == 0) std::sscanf(line + std::strlen(field), ": %llu", &kilobytes);
    std::fclose(file);
  }
  return static_cast<std::size_t>(kilobytes) << 10;
}

}  // namespace

int main(int argc, char** argv) {
  std::string shape = "qwen3-12m", part = "train";
  EngineOptions options;
  options.dtype = DType::BFloat16;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string key = argv[i], value = argv[i + 1];
    if (key == "--shape") shape = value;
    else if (key == "--part") part = value;
    else if (key == "--dtype") options.dtype = value == "float32" ? DType::Float32 : DType::BFloat16;
    else { std::fprintf(stderr, "unknown option %s\n", key.c_str()); return 2; }
  }
  try {
    const std::size_t before = status("VmRSS");
    const auto engine = Engine::create(bench::shape_named(shape).config, {.seed = 1}, options);
    const std::int64_t V = engine->config().vocab_size;
    MemoryPlanOptions work;
    TokenForest forest;
    SampleOptions sample;
    if (part == "train") {
      for (int s = 0; s < 8; ++s) forest.add(-1, random_tokens(256, V, static_cast<std::uint32_t>(s)));
      work.training_tokens = forest.size();
      work.context_tokens = 256;
    } else if (part == "grpo") {
      for (int s = 0; s < 4; ++s) sample.from.push_back(forest.add(-1, random_tokens(128, V, static_cast<std::uint32_t>(s))));
      sample.n = 8;
      sample.max_tokens = 64;
      sample.keep_activations = true;
      work.training_tokens = 3 * (128 + 8 * 63);  // whole trees, as they fit into the engine's micro-batches
      work.contexts = 4;
      work.context_tokens = 128;
      work.rollouts = 8;
      work.new_tokens = 64;
      work.keep_activations = true;
    } else {
      for (int s = 0; s < 32; ++s) sample.from.push_back(forest.add(-1, random_tokens(128, V, static_cast<std::uint32_t>(s))));
      sample.n = 4;
      sample.max_tokens = 64;
      work.training_tokens = 0;
      work.contexts = 32;
      work.context_tokens = 128;
      work.rollouts = 4;
      work.new_tokens = 64;
    }
    std::size_t planned = 0;
    for (const MemoryItem& item : engine->memory_plan(work)) {
      std::printf("  %-34s %9.1f MB\n", item.name.c_str(), static_cast<double>(item.bytes) / (1 << 20));
      planned += item.bytes;
    }
    std::vector<LossTerm> terms{CrossEntropyTerm{}};
    if (part != "train") {
      PolicyTerm policy;
      for (const Rollout& rollout : engine->sample(forest, sample, {}).rollouts) {
        policy.segments.push_back(forest.add(rollout.segment, rollout.tokens));
        policy.advantages.push_back(1);
      }
      terms = {policy};
    }
    if (part != "rollouts") {
      engine->accumulate(forest, terms, {}, {});
      StepOptions step;
      step.learning_rate = 1e-5;
      engine->step(step);
    }
    const std::size_t peak = status("VmHWM") - before;
    std::printf("%s %s %s: planned %.1f MB, peak %.1f MB, ratio %.3f\n", shape.c_str(), name_of(options.dtype), part.c_str(),
                static_cast<double>(planned) / (1 << 20), static_cast<double>(peak) / (1 << 20),
                static_cast<double>(peak) / static_cast<double>(planned));
  } catch (const Error& error) {
    std::fprintf(stderr, "%s: %s\n", error_code_name(error.code()), error.what());
    return 1;
  }
}
