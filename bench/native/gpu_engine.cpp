// The whole engine on a GPU: training, decoding and a GRPO step on the shapes of published models with random weights.
// Each result is a line of JSON; scripts/gpu-check.sh collects them.
//
//   gpu_engine --library build/Release/libforetoken_cuda.so [--device cuda] [--shape qwen2.5-0.5b] [--part train|decode|grpo]
//              [--copy 4300] [--product 790] [--scale 1]
//
// --copy (GB/s) and --product (TFLOP/s) are ceilings that gpu_operations measured in the same session. --scale 64 does a
// 64th of the work, to try the program itself on a CPU (--device cpu).

#include <cstdio>
#include <string>

#include "core/error.h"
#include "engine/engine.h"
#include "support/ceiling.h"
#include "support/shapes.h"
#include "support/work.h"

using namespace foretoken;
using namespace foretoken::bench;

namespace {

constexpr double kPeak = 989e12;  // dense bfloat16 FLOP/s of an H100 or H200, by their datasheets

struct Options {
  std::string shape = "qwen2.5-0.5b", part;
  EngineOptions engine;
  double copy = 0, product = 0;  // B/s, FLOP/s; 0: not measured
  int scale = 1;

  int scaled(int full) const { return std::max(2, full / scale); }
};

std::string share(const char* name, double of, double ceiling) {
  if (ceiling <= 0) return {};
  char text[80];
  std::snprintf(text, sizeof text, ", \"%s\": %.4f", name, of / ceiling);
  return text;
}

void report(const Options& options, const char* part, double value, const char* unit, const std::string& more) {
  std::printf("{\"part\": \"%s\", \"shape\": \"%s\", \"value\": %.6g, \"unit\": \"%s\"%s}\n", part, options.shape.c_str(), value, unit,
              more.c_str());
  std::fflush(stdout);
}

void update(Engine& engine) {
  StepOptions step;
  step.learning_rate = 1e-6;
  step.max_grad_norm = 1;
  engine.step(step);
}

double timed(const auto& work) {
  const double begin = seconds();
  work();
  return seconds() - begin;
}

/// Seconds of the faster of two runs after one that warms up; all of them end with a download.
double best_of_two(const auto& work) {
  work();
  return std::min(timed(work), timed(work));
}

void train(Engine& engine, const Options& options) {
  const int sequences = options.scaled(64), length = options.scaled(1024);
  const ModelConfig& config = engine.config();
  TokenForest forest;
  for (int s = 0; s < sequences; ++s) forest.add(-1, random_tokens(length, config.vocab_size, static_cast<std::uint32_t>(s)));
  const double time = best_of_two([&] {
    engine.accumulate(forest, {CrossEntropyTerm{}}, {}, {});
    update(engine);
  });
  const double tokens = static_cast<double>(sequences) * length, rate = tokens / time;
  const double flops = rate * (6 * product_parameters(config) + 3 * attention_flops(config, length));
  report(options, "train", rate, "tokens/s",
         ", \"tokens\": " + std::to_string(sequences * length) + ", \"length\": " + std::to_string(length) +
             share("TFLOP/s", flops, 1e12) + share("of_peak", flops, kPeak) + share("of_product", flops, options.product));
}

void decode(Engine& engine, const Options& options) {
  const int sequences = options.scaled(256), context = options.scaled(1024), steps = options.scaled(64);
  const ModelConfig& config = engine.config();
  TokenForest forest;
  SampleOptions sample;
  for (int s = 0; s < sequences; ++s)
    sample.from.push_back(forest.add(-1, random_tokens(context, config.vocab_size, static_cast<std::uint32_t>(s))));
  const auto time_of = [&](int tokens) {
    sample.max_tokens = tokens;
    return best_of_two([&] { engine.sample(forest, sample, {}); });
  };
  // The prompts are in both, and so is the first token.
  const double first = time_of(1), time = (time_of(1 + steps) - first) / steps;
  const double element = options.engine.dtype == DType::BFloat16 ? 2 : 4;
  const double bytes = element * (product_parameters(config) +
                                  2.0 * sequences * (context + steps / 2.0) *
                                      static_cast<double>(config.num_layers * config.num_kv_heads * config.head_dim));
  report(options, "decode", sequences / time, "tokens/s",
         ", \"sequences\": " + std::to_string(sequences) + ", \"context\": " + std::to_string(context) +
             share("step_ms", time, 1e-3) + share("GB/s", bytes / time, 1e9) + share("of_copy", bytes / time, options.copy));
  report(options, "prefill", static_cast<double>(sequences) * context / first, "tokens/s", "");
}

void grpo(Engine& engine, const Options& options) {
  const int contexts = options.scaled(64), group = options.scaled(16), prompt = options.scaled(256), fresh = options.scaled(512);
  const ModelConfig& config = engine.config();
  SampleOptions sample;
  sample.n = group;
  sample.max_tokens = fresh;
  double sampling = 0, training = 0;
  TermStatistics statistics;
  // The second step is the one that counts; a small one before it loads kernels and chooses algorithms.
  for (int step = 0; step < 2; ++step) {
    TokenForest forest;
    sample.from.clear();
    for (int c = 0; c < (step == 0 ? (contexts + 7) / 8 : contexts); ++c)
      sample.from.push_back(forest.add(-1, random_tokens(prompt, config.vocab_size, static_cast<std::uint32_t>(c))));
    sample.seed = static_cast<std::uint64_t>(step);
    TokenForest grown = forest;
    SampleResult result;
    sampling = timed([&] { result = engine.sample(forest, sample, {}); });
    PolicyTerm policy;
    policy.old_logprobs.assign(static_cast<std::size_t>(forest.size()), 0.0f);
    for (std::size_t r = 0; r < result.rollouts.size(); ++r) {
      const Rollout& rollout = result.rollouts[r];
      policy.segments.push_back(grown.add(rollout.segment, rollout.tokens));
      policy.advantages.push_back(r % 2 ? 1.0f : -1.0f);
      policy.old_logprobs.insert(policy.old_logprobs.end(), rollout.logprobs.begin(), rollout.logprobs.end());
    }
    training = timed([&] {
      statistics = engine.accumulate(grown, {policy}, {}, {}).terms[0];
      update(engine);
    });
  }
  report(options, "grpo", sampling + training, "s",
         ", \"contexts\": " + std::to_string(contexts) + ", \"group\": " + std::to_string(group) + ", \"prompt\": " +
             std::to_string(prompt) + ", \"new_tokens\": " + std::to_string(fresh) + share("rollouts_s", sampling, 1) +
             share("update_s", training, 1) + share("ratio_max", statistics.ratio_max, 1) +
             share("approximate_kl", statistics.approximate_kl, 1));
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  options.engine.device = "cuda";
  options.engine.dtype = DType::BFloat16;
  options.engine.batch_tokens = 16384;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string key = argv[i], value = argv[i + 1];
    if (key == "--library") options.engine.cuda_library = value;
    else if (key == "--device") options.engine.device = value;
    else if (key == "--shape") options.shape = value;
    else if (key == "--part") options.part = value;
    else if (key == "--copy") options.copy = 1e9 * std::stod(value);
    else if (key == "--product") options.product = 1e12 * std::stod(value);
    else if (key == "--scale") options.scale = std::stoi(value);
    else { std::fprintf(stderr, "unknown option %s\n", key.c_str()); return 2; }
  }
  try {
    const double begin = seconds();
    const auto engine = Engine::create(shape_named(options.shape).config, {.seed = 1}, options.engine);
    report(options, "create", seconds() - begin, "s", ", \"device\": \"" + engine->device_description() + '"');
    const auto wanted = [&](const char* part) { return options.part.empty() || options.part == part; };
    if (wanted("train")) train(*engine, options);
    if (wanted("decode")) decode(*engine, options);
    if (wanted("grpo")) grpo(*engine, options);
  } catch (const Error& error) {
    std::fprintf(stderr, "%s: %s\n", error_code_name(error.code()), error.what());
    return 1;
  }
}
