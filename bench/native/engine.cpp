// The whole engine on the shapes of published small models with random weights: training, rollouts and a GRPO step.
// Every line is a share of a ceiling measured in the same run: FLOPs against a large matrix product, decoding also
// against the bytes of weights that a step must read.
//
//   engine [--shape qwen3-12m|smollm2-135m|qwen2.5-0.5b] [--dtype bfloat16|float32] [--part train|rollouts|grpo]
//          [--sequences 32] [--threads 2] [--repeats 5] [--json yes]
//          [--contexts 4] [--keep no]: of a GRPO step; without keep its update makes a forward pass

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "core/error.h"
#include "engine/engine.h"
#include "support/ceiling.h"
#include "support/shapes.h"
#include "support/work.h"

using namespace foretoken;
using bench::attention_flops;
using bench::product_parameters;
using bench::random_tokens;

namespace {

struct Options {
  std::string shape = "qwen3-12m", part;
  bool json = false, keep = true;
  DType dtype = DType::BFloat16;
  int threads = 0, repeats = 5, sequences = 0, contexts = 4;
};

/// One result: for people, or a line of JSON for bench/peers.mjs.
void report(const Options& options, const char* what, double value, const char* unit, double share, const std::string& note) {
  if (options.json)
    std::printf("{\"what\": \"%s\", \"value\": %.6g, \"unit\": \"%s\", \"share\": %.4f}\n", what, value, unit, share);
  else if (share > 0)
    std::printf("%-12s %10.4g %-6s %5.1f %% of the product's ceiling; %s\n", what, value, unit, 100 * share, note.c_str());
  else
    std::printf("%-12s %10.4g %-6s %s\n", what, value, unit, note.c_str());
  std::fflush(stdout);
}

void update(Engine& engine) {
  StepOptions step;
  step.learning_rate = 1e-5;
  step.max_grad_norm = 1;
  engine.step(step);
}

void bench_train(Engine& engine, const Options& options, const bench::Ceiling& ceiling) {
  constexpr std::int64_t sequences = 8, length = 192;
  const ModelConfig& config = engine.config();
  TokenForest forest;
  for (std::uint32_t s = 0; s < sequences; ++s) forest.add(-1, random_tokens(length, config.vocab_size, s));
  const std::vector<LossTerm> terms{CrossEntropyTerm{}};
  const double flops = 6 * product_parameters(config) + 3 * attention_flops(config, length);
  const auto pass = [&] { engine.accumulate(forest, terms, {}, {}); update(engine); };
  const auto [time, share] = bench::median_share(pass, options.repeats, flops * sequences * length, ceiling);
  report(options, "train", sequences * length / time, "tok/s", share,
         std::to_string(sequences) + " sequences of " + std::to_string(length));
}

void bench_rollouts(Engine& engine, const Options& options, const bench::Ceiling& ceiling) {
  constexpr int prompt = 128, fresh = 64;
  const ModelConfig& config = engine.config();
  const double weight_bytes = product_parameters(config) * (options.dtype == DType::BFloat16 ? 2.0 : 4.0);
  for (const int count : {1, 32, 256}) {
    if (options.sequences > 0 && count != options.sequences) continue;
    TokenForest forest;
    SampleOptions sample;
    for (int s = 0; s < count; ++s) sample.from.push_back(forest.add(-1, random_tokens(prompt, config.vocab_size, s)));
    sample.max_tokens = fresh;
    // A step reads every weight once and computes 2 FLOPs per weight and sequence; the prompt is computed once.
    const double flops = (2 * product_parameters(config) + attention_flops(config, prompt)) * count * (fresh + prompt);
    const auto [time, share] =
        bench::median_share([&] { engine.sample(forest, sample, {}); }, options.repeats, flops, ceiling);
    const std::string what = "rollouts-" + std::to_string(count);
    report(options, what.c_str(), count * fresh / time, "tok/s", share,
           "weights read at " + std::to_string(weight_bytes * fresh / time * 1e-9).substr(0, 5) + " GB/s; prompts of " +
               std::to_string(prompt) + ", " + std::to_string(fresh) + " new tokens");
  }
}

/// Of all but the first, which warmed up.
double median(std::vector<double> times) {
  times.erase(times.begin());
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

void bench_grpo(Engine& engine, const Options& options) {
  constexpr int prompt = 128, group = 8, fresh = 64;
  const int contexts = options.contexts;
  const ModelConfig& config = engine.config();
  std::vector<double> sampling, training;
  const auto step = [&] {
    TokenForest forest;
    SampleOptions sample;
    for (int c = 0; c < contexts; ++c) sample.from.push_back(forest.add(-1, random_tokens(prompt, config.vocab_size, c)));
    sample.n = group;
    sample.max_tokens = fresh;
    sample.temperature = 0.8;
    sample.keep_activations = options.keep;
    double begin = bench::seconds();
    const SampleResult result = engine.sample(forest, sample, {});
    sampling.push_back(bench::seconds() - begin);
    PolicyTerm policy;
    for (std::size_t r = 0; r < result.rollouts.size(); ++r) {
      policy.segments.push_back(forest.add(result.rollouts[r].segment, result.rollouts[r].tokens));
      policy.advantages.push_back(r % 2 ? 1.0f : -1.0f);
    }
    begin = bench::seconds();
    AccumulateOptions accumulate;
    accumulate.temperature = 0.8;
    engine.accumulate(forest, {policy}, accumulate, {});
    update(engine);
    training.push_back(bench::seconds() - begin);
  };
  const double time = bench::median_time(step, options.repeats);
  report(options, "grpo-rollouts", contexts * group * fresh / median(sampling), "tok/s", 0,
         std::to_string(contexts) + " contexts of " + std::to_string(prompt) + ", " + std::to_string(group) + " rollouts of each");
  report(options, "grpo-step", time, "s", 0,
         "rollouts " + std::to_string(median(sampling)).substr(0, 6) + ", update " + std::to_string(median(training)).substr(0, 6) + "; " +
             std::to_string(contexts) + " contexts of " + std::to_string(prompt) + ", G " + std::to_string(group) + ", " +
             std::to_string(fresh) + " new tokens");
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string key = argv[i], value = argv[i + 1];
    if (key == "--shape") options.shape = value;
    else if (key == "--dtype") options.dtype = value == "float32" ? DType::Float32 : DType::BFloat16;
    else if (key == "--part") options.part = value;
    else if (key == "--threads") options.threads = std::stoi(value);
    else if (key == "--sequences") options.sequences = std::stoi(value);
    else if (key == "--repeats") options.repeats = std::stoi(value);
    else if (key == "--contexts") options.contexts = std::stoi(value);
    else if (key == "--keep") options.keep = value == "yes";
    else if (key == "--json") options.json = value == "yes";
    else { std::fprintf(stderr, "unknown option %s\n", key.c_str()); return 2; }
  }
  try {
    const bench::Shape& shape = bench::shape_named(options.shape);
    const bench::Ceiling ceiling(options.dtype, options.threads);
    EngineOptions engine_options;
    engine_options.dtype = options.dtype;
    engine_options.threads = options.threads;
    const auto engine = Engine::create(shape.config, {.seed = 1}, engine_options);
    if (!options.json)
      std::printf("%s %s on %s; product: ours %.0f GFLOP/s, oneDNN %.0f\n", shape.name, name_of(options.dtype),
                  engine->device_description().c_str(), ceiling.ours(), ceiling.onednn());
    if (options.part.empty() || options.part == "train") bench_train(*engine, options, ceiling);
    if (options.part.empty() || options.part == "rollouts") bench_rollouts(*engine, options, ceiling);
    if (options.part.empty() || options.part == "grpo") bench_grpo(*engine, options);
  } catch (const Error& error) {
    std::fprintf(stderr, "%s: %s\n", error_code_name(error.code()), error.what());
    return 1;
  }
}
