#include "node/arguments.h"

#include <span>

#include "core/error.h"
#include "node/fields.h"

namespace foretoken {

namespace {

constexpr const char* kDTypes[] = {"float64", "float32", "bfloat16", "float16"};
constexpr const char* kWeights[] = {"current", "reference", "average"};
constexpr const char* kTensors[] = {"weight", "gradient", "reference", "average"};
constexpr const char* kLosses[] = {"clip", "cispo", "gspo"};
constexpr const char* kAggregations[] = {"token-mean", "sequence-mean", "constant"};
constexpr const char* kEstimators[] = {"k1", "k2", "k3"};

std::size_t read_bytes(const Fields& fields, const char* name) {
  std::int64_t bytes = 0;
  fields.read(name, bytes);
  if (bytes < 0) fields.refuse(name, "must not be negative");
  return static_cast<std::size_t>(bytes);
}

LossTerm read_cross_entropy(const Fields& fields) {
  CrossEntropyTerm term;
  fields.read("weights", term.weights);
  fields.read("coefficient", term.coefficient);
  fields.read("normaliser", term.normaliser);
  return term;
}

LossTerm read_policy(const Fields& fields) {
  PolicyTerm term;
  fields.read("segments", term.segments);
  fields.read("advantages", term.advantages);
  fields.read("advantagesPerToken", term.advantages_per_token);
  fields.read("oldLogprobs", term.old_logprobs);
  fields.read("referenceLogprobs", term.reference_logprobs);
  fields.read("weights", term.weights);
  fields.read("loss", term.loss, kLosses);
  fields.read("clipLow", term.clip_low);
  fields.read("clipHigh", term.clip_high);
  fields.read("dualClip", term.dual_clip);
  fields.read("aggregation", term.aggregation, kAggregations);
  fields.read("normaliser", term.normaliser);
  fields.read("klCoefficient", term.kl_coefficient);
  fields.read("klEstimator", term.kl, kEstimators);
  fields.read("entropyCoefficient", term.entropy_coefficient);
  fields.read("coefficient", term.coefficient);
  return term;
}

}  // namespace

EngineOptions read_engine_options(const Napi::Value& value) {
  const Fields fields(value, "options");
  EngineOptions options;
  fields.read("device", options.device);
  fields.read("cudaLibrary", options.cuda_library);
  fields.read("dtype", options.dtype, kDTypes);
  fields.read("allowTf32", options.allow_tf32);
  fields.read("bfloat16State", options.bfloat16_state);
  fields.read("threads", options.threads);
  fields.read("batchTokens", options.batch_tokens);
  fields.read("cacheTokens", options.cache_tokens);
  options.memory_limit = read_bytes(fields, "memoryLimit");
  fields.read("recompute", options.recompute);
  return options;
}

Initialisation read_initialisation(const Napi::Value& value) {
  const Fields fields(value, "initialisation");
  Initialisation initialisation;
  fields.read("seed", initialisation.seed);
  fields.read("embedding", initialisation.embedding);
  fields.read("head", initialisation.head);
  fields.read("projection", initialisation.projection);
  fields.read("outputProjection", initialisation.output_projection);
  fields.read("scaleByFanIn", initialisation.scale_by_fan_in);
  return initialisation;
}

TokenForest read_forest(const Napi::Value& value) {
  const Fields fields(value, "forest");
  std::vector<std::int32_t> tokens, parents, lengths;
  fields.read("tokens", tokens);
  fields.read("parents", parents);
  fields.read("lengths", lengths);
  if (parents.size() != lengths.size()) fields.refuse("lengths", "must have one entry per segment");
  TokenForest forest;
  std::size_t begin = 0;
  for (std::size_t s = 0; s < parents.size(); ++s) {
    const auto length = static_cast<std::size_t>(lengths[s]);
    if (lengths[s] < 0 || length > tokens.size() - begin) fields.refuse("lengths", "sum to more than there are tokens");
    forest.add(parents[s], std::span(tokens).subspan(begin, length));
    begin += length;
  }
  if (begin != tokens.size()) fields.refuse("lengths", "sum to less than there are tokens");
  return forest;
}

ScoreOptions read_score_options(const Napi::Value& value) {
  const Fields fields(value, "options");
  ScoreOptions options;
  fields.read("temperature", options.temperature);
  fields.read("weights", options.weights, kWeights);
  fields.read("topEntropy", options.top_entropy);
  fields.read("argmax", options.argmax);
  fields.read("logits", options.logit_tokens);
  return options;
}

SampleOptions read_sample_options(const Napi::Value& value) {
  const Fields fields(value, "options");
  SampleOptions options;
  fields.read("from", options.from);
  fields.read("n", options.n);
  fields.read("maxTokens", options.max_tokens);
  fields.read("minTokens", options.min_tokens);
  fields.read("temperature", options.temperature);
  fields.read("topK", options.top_k);
  fields.read("topP", options.top_p);
  fields.read("minP", options.min_p);
  fields.read("seed", options.seed);
  fields.read("rolloutIds", options.rollout_ids);
  fields.read("bannedTokens", options.banned);
  fields.read("stopTokens", options.stop.tokens);
  fields.read("stopTexts", options.stop.texts);
  fields.read("weights", options.weights, kWeights);
  fields.read("maxSequences", options.max_sequences);
  fields.read("keepActivations", options.keep_activations);
  return options;
}

std::vector<LossTerm> read_loss_terms(const Napi::Value& value) {
  if (!value.IsArray()) fail(ErrorCode::InvalidArgument, "terms must be an array");
  const auto array = value.As<Napi::Array>();
  std::vector<LossTerm> terms;
  for (std::uint32_t i = 0; i < array.Length(); ++i) {
    const Fields fields(array.Get(i), "term");
    std::string kind;
    fields.read("kind", kind);
    if (kind == "cross-entropy") terms.push_back(read_cross_entropy(fields));
    else if (kind == "policy") terms.push_back(read_policy(fields));
    else fields.refuse("kind", "must be 'cross-entropy' or 'policy'");
  }
  return terms;
}

AccumulateOptions read_accumulate_options(const Napi::Value& value) {
  const Fields fields(value, "options");
  AccumulateOptions options;
  fields.read("temperature", options.temperature);
  fields.read("recompute", options.recompute);
  fields.read("batchTokens", options.batch_tokens);
  return options;
}

StepOptions read_step_options(const Napi::Value& value) {
  const Fields fields(value, "options");
  StepOptions options;
  fields.read("learningRate", options.learning_rate);
  fields.read("beta1", options.beta1);
  fields.read("beta2", options.beta2);
  fields.read("epsilon", options.epsilon);
  fields.read("weightDecay", options.weight_decay);
  fields.read("maxGradNorm", options.max_grad_norm);
  fields.read("decayAll", options.decay_all);
  return options;
}

MemoryPlanOptions read_memory_plan_options(const Napi::Value& value) {
  const Fields fields(value, "options");
  MemoryPlanOptions options;
  fields.read("trainingTokens", options.training_tokens);
  fields.read("contexts", options.contexts);
  fields.read("contextTokens", options.context_tokens);
  fields.read("rollouts", options.rollouts);
  fields.read("newTokens", options.new_tokens);
  fields.read("maxSequences", options.max_sequences);
  fields.read("keepActivations", options.keep_activations);
  return options;
}

SaveRequest read_save_options(const Napi::Value& value) {
  const Fields fields(value, "options");
  SaveRequest options;
  fields.read("dtype", options.dtype, kDTypes);
  options.max_shard_bytes = read_bytes(fields, "maxShardBytes");
  return options;
}

TokenBytes read_token_bytes(const Napi::Value& value) {
  const Fields fields(value, "table");
  TokenBytes table;
  std::vector<double> offsets;  // JavaScript's way to hold integers above 2^31
  fields.read("bytes", table.bytes);
  fields.read("offsets", offsets);
  table.offsets.reserve(offsets.size());
  for (const double offset : offsets) {
    if (!(offset >= 0 && offset <= static_cast<double>(table.bytes.size())))
      fields.refuse("offsets", "must lie within the bytes");
    table.offsets.push_back(static_cast<std::int64_t>(offset));
  }
  return table;
}

TensorKind read_tensor_kind(const Napi::Value& value) {
  const std::string text = read_string(value, "kind");
  for (std::size_t i = 0; i < std::size(kTensors); ++i)
    if (text == kTensors[i]) return static_cast<TensorKind>(i);
  fail(ErrorCode::InvalidArgument, "kind must be 'weight', 'gradient', 'reference' or 'average', not '", text, "'");
}

std::vector<float> read_floats(const Napi::Value& value, const char* what) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_float32_array)
    fail(ErrorCode::InvalidArgument, what, " must be a Float32Array");
  const auto array = value.As<Napi::Float32Array>();
  return {array.Data(), array.Data() + array.ElementLength()};
}

std::string read_string(const Napi::Value& value, const char* what) {
  if (!value.IsString()) fail(ErrorCode::InvalidArgument, what, " must be a string");
  return value.As<Napi::String>().Utf8Value();
}

double read_number(const Napi::Value& value, const char* what) {
  if (!value.IsNumber()) fail(ErrorCode::InvalidArgument, what, " must be a number");
  return value.As<Napi::Number>().DoubleValue();
}

}  // namespace foretoken
