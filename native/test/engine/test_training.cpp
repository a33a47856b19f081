#include <cmath>
#include <cstring>

#include "core/error.h"
#include "tiny_models.h"
#include "../files.h"
#include "../test.h"

using namespace foretoken;
using namespace foretoken::test;

namespace {

StepOptions rate(double learning_rate) {
  StepOptions options;
  options.learning_rate = learning_rate;
  options.weight_decay = 0.1;
  options.max_grad_norm = 1;
  return options;
}

double train(Engine& engine, int steps, double learning_rate = 1e-2) {
  const TokenForest forest = some_forest(engine.config().vocab_size);
  double loss = 0;
  for (int i = 0; i < steps; ++i) {
    loss = engine.accumulate(forest, {CrossEntropyTerm{}}, {}, {}).loss;
    engine.step(rate(learning_rate));
  }
  return loss;
}

std::vector<std::vector<float>> all_weights(Engine& engine, TensorKind kind = TensorKind::Weight) {
  std::vector<std::vector<float>> weights;
  for (const ParameterInfo& parameter : engine.parameters()) weights.push_back(engine.read(parameter.name, kind));
  return weights;
}

}  // namespace

TEST("training learns a forest by heart, in every dtype") {
  for (const TinyModel& model : tiny_models()) {
    for (const DType dtype : {DType::Float32, DType::BFloat16}) {
      const auto engine = tiny_engine(model, cpu(dtype));
      const double before = train(*engine, 1), after = train(*engine, 60);
      CHECK(before > 3);
      CHECK(after < 0.5);
    }
    EngineOptions narrow = cpu(DType::BFloat16);
    narrow.bfloat16_state = true;
    const auto engine = tiny_engine(model, narrow);
    CHECK_EQ(engine->parameters()[0].dtype == DType::BFloat16, true);
    train(*engine, 60);
    CHECK(train(*engine, 1) < 1.0);
  }
}

TEST("bfloat16 weights follow updates far below their resolution, on average") {
  EngineOptions narrow = cpu(DType::BFloat16);
  narrow.bfloat16_state = true;
  const auto engine = tiny_engine(tiny_models()[0], narrow);
  const std::string name = "model.layers.0.mlp.up_proj.weight";
  const std::vector<float> before = engine->read(name, TensorKind::Weight);
  const TokenForest forest = some_forest(67);
  constexpr int steps = 20;
  constexpr double learning_rate = 1e-5;  // a weight of 0.1 has neighbours 4.9e-4 away
  for (int i = 0; i < steps; ++i) {
    engine->accumulate(forest, {CrossEntropyTerm{}}, {}, {});
    StepOptions options;
    options.learning_rate = learning_rate;
    engine->step(options);
  }
  const std::vector<float> after = engine->read(name, TensorKind::Weight);
  const auto exact = tiny_engine(tiny_models()[0], cpu(DType::BFloat16));
  exact->accumulate(forest, {CrossEntropyTerm{}}, {}, {});
  const std::vector<float> gradient = exact->read(name, TensorKind::Gradient);
  double moved = 0;
  std::size_t counted = 0;
  for (std::size_t i = 0; i < before.size(); ++i) {
    if (std::fabs(gradient[i]) < 1e-4) continue;
    moved -= (after[i] - before[i]) * (gradient[i] > 0 ? 1 : -1);
    ++counted;
  }
  // Adam's early updates are about the learning rate in size and keep their sign here; the mean over two thousand
  // weights of a sum of random roundings lies within a few per cent of steps · learning rate, plain rounding gives 0.
  const double mean = moved / static_cast<double>(counted) / (steps * learning_rate);
  CHECK(counted > 1000);
  CHECK(mean > 0.5 && mean < 1.5);
}

TEST("a saved training state continues with the same bits, in mid-accumulation, too") {
  for (const bool narrow : {false, true}) {
    EngineOptions options = cpu(DType::BFloat16);
    options.bfloat16_state = narrow;
    const TinyModel& model = tiny_models()[1];
    const TemporaryDirectory directory;
    const std::string path = (directory / "state").string();
    const auto a = tiny_engine(model, options);
    const TokenForest forest = some_forest(a->config().vocab_size);
    train(*a, 3);
    a->keep_reference();
    a->update_average(0.9);
    train(*a, 1);
    a->update_average(0.9);
    a->accumulate(forest, {CrossEntropyTerm{}}, {}, {});
    a->save_training_state(path);
    const auto b = tiny_engine(model, options, 99);
    train(*b, 2);
    b->load_training_state(path);
    for (Engine* engine : {a.get(), b.get()}) {
      engine->accumulate(forest, {CrossEntropyTerm{}}, {}, {});
      engine->step(rate(1e-2));
      train(*engine, 2);
      engine->update_average(0.5);
    }
    CHECK(all_weights(*a) == all_weights(*b));
    CHECK(all_weights(*a, TensorKind::Reference) == all_weights(*b, TensorKind::Reference));
    CHECK(all_weights(*a, TensorKind::Average) == all_weights(*b, TensorKind::Average));
    ScoreOptions average;
    average.weights = WeightsKind::Average;
    const std::vector<float> x = a->score(forest, average, {}).logprobs, y = b->score(forest, average, {}).logprobs;
    CHECK(std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0);
  }
}

TEST("a training state of another model or another layout is refused, and nothing is overwritten") {
  const TemporaryDirectory directory;
  const std::string path = (directory / "state").string();
  const auto a = tiny_engine(tiny_models()[0], cpu()), b = tiny_engine(tiny_models()[1], cpu());
  a->save_training_state(path);
  const auto before = all_weights(*b);
  CHECK_FAILS(ErrorCode::InvalidCheckpoint, (b->load_training_state(path), 0));
  EngineOptions narrow = cpu(DType::BFloat16);
  narrow.bfloat16_state = true;
  const auto c = tiny_engine(tiny_models()[0], narrow);
  CHECK_FAILS(ErrorCode::InvalidCheckpoint, (c->load_training_state(path), 0));
  CHECK_FAILS(ErrorCode::Io, (b->load_training_state((directory / "nowhere").string()), 0));
  CHECK(all_weights(*b) == before);
}

TEST("a saved checkpoint opens as the same model") {
  const TemporaryDirectory directory;
  const std::string path = (directory / "model").string();
  const auto a = tiny_engine(tiny_models()[2], cpu());
  train(*a, 2);
  a->save(path, DType::Float32);
  const auto b = Engine::open(path, cpu());
  CHECK(all_weights(*a) == all_weights(*b));
  a->save(path, DType::BFloat16, 4096);
  const auto c = Engine::open(path, cpu());
  const auto rounded = all_weights(*c), exact = all_weights(*a);
  for (std::size_t p = 0; p < exact.size(); ++p)
    for (std::size_t i = 0; i < exact[p].size(); ++i) CHECK_EQ(rounded[p][i], static_cast<float>(BFloat16(exact[p][i])));
}

TEST("reference weights stay, average weights follow") {
  const auto engine = tiny_engine(tiny_models()[0], cpu());
  const TokenForest forest = some_forest(67);
  const std::vector<float> before = engine->score(forest, {}, {}).logprobs;
  ScoreOptions reference_options, average_options;
  reference_options.weights = WeightsKind::Reference;
  average_options.weights = WeightsKind::Average;
  CHECK_FAILS(ErrorCode::InvalidArgument, engine->score(forest, reference_options, {}));
  CHECK_FAILS(ErrorCode::InvalidArgument, engine->score(forest, average_options, {}));
  engine->keep_reference();
  engine->update_average(0.5);
  const std::string name = "model.layers.1.self_attn.o_proj.weight";
  const std::vector<float> old = engine->read(name, TensorKind::Weight);
  train(*engine, 2);
  engine->update_average(0.5);
  const std::vector<float> now = engine->read(name, TensorKind::Weight), mean = engine->read(name, TensorKind::Average);
  for (std::size_t i = 0; i < old.size(); ++i) CHECK_CLOSE(mean[i], 0.5 * old[i] + 0.5 * now[i], 1e-6);
  const std::vector<float> kept = engine->score(forest, reference_options, {}).logprobs;
  CHECK(std::memcmp(kept.data(), before.data(), kept.size() * sizeof(float)) == 0);
  CHECK(engine->score(forest, {}, {}).logprobs != before);
}

TEST("an average of bfloat16 weights follows steps that bfloat16 could not hold") {
  EngineOptions narrow = cpu(DType::BFloat16);
  narrow.bfloat16_state = true;
  const auto engine = tiny_engine(tiny_models()[0], narrow);
  const std::string name = "model.layers.0.mlp.up_proj.weight";
  std::vector<float> values(static_cast<std::size_t>(56 * 40), 1.0f);
  engine->write(name, values);
  engine->update_average(0.999);
  std::fill(values.begin(), values.end(), 1.5f);
  engine->write(name, values);
  for (int i = 0; i < 100; ++i) engine->update_average(0.999);
  // 1.5 - 0.5 · 0.999^100; one step moves by 5e-4, an eighth of the distance of bfloat16's numbers above 1.
  CHECK_CLOSE(engine->read(name, TensorKind::Average)[0], 1.5 - 0.5 * std::pow(0.999, 100), 1e-4);
}

TEST("numbers that are not finite stop before a weight is touched, and name the culprit") {
  const auto engine = tiny_engine(tiny_models()[0], cpu());
  const TokenForest forest = some_forest(67);
  CHECK_FAILS(ErrorCode::InvalidArgument, engine->step(rate(1e-3)));  // nothing accumulated
  std::vector<float> huge(static_cast<std::size_t>(40 * 56), 3e38f);
  const auto before = all_weights(*engine);
  CHECK_FAILS(ErrorCode::NonFinite, (engine->write("model.layers.0.mlp.down_proj.weight", std::vector<float>(40 * 56, NAN)), 0));
  engine->write("model.layers.0.mlp.down_proj.weight", huge);
  engine->write("model.layers.1.mlp.down_proj.weight", huge);
  CHECK_FAILS(ErrorCode::NonFinite, engine->accumulate(forest, {CrossEntropyTerm{}}, {}, {}));
  SampleOptions sample;
  sample.from = {0};
  sample.max_tokens = 8;
  CHECK_FAILS(ErrorCode::NonFinite, engine->sample(forest, sample, {}));
  const auto names = engine->parameters();
  for (std::size_t p = 0; p < names.size(); ++p) engine->write(names[p].name, before[p]);
  engine->zero_gradients();
  const auto fresh = tiny_engine(tiny_models()[0], cpu());
  CHECK_EQ(train(*engine, 1), train(*fresh, 1));
}

TEST("what does not fit the memory limit is refused before it is allocated") {
  EngineOptions options = cpu();
  options.memory_limit = 1 << 16;
  CHECK_FAILS(ErrorCode::OutOfMemory, tiny_engine(tiny_models()[0], options));
  options.memory_limit = 600 << 10;
  const auto engine = tiny_engine(tiny_models()[0], options);
  CHECK_FAILS(ErrorCode::OutOfMemory, engine->accumulate(some_forest(67), {CrossEntropyTerm{}}, {}, {}));
  TokenForest small;
  small.add(-1, some_tokens(4, 67, 1));
  CHECK_EQ(engine->score(small, {}, {}).logprobs.size(), std::size_t{4});
}
