#include "node/results.h"

#include <algorithm>
#include <optional>

namespace foretoken {

namespace {

template <typename T>
Napi::Value typed_array(Napi::Env env, const std::vector<T>& values) {
  auto array = Napi::TypedArrayOf<T>::New(env, values.size());
  std::copy(values.begin(), values.end(), array.Data());
  return array;
}

Napi::Value number(Napi::Env env, std::int64_t value) { return Napi::Number::New(env, static_cast<double>(value)); }

Napi::Value number(Napi::Env env, const std::optional<std::int64_t>& value) {
  return value ? number(env, *value) : env.Null();
}

Napi::Value numbers(Napi::Env env, const std::vector<std::int64_t>& values) {
  auto array = Napi::Array::New(env, values.size());
  for (std::uint32_t i = 0; i < values.size(); ++i) array.Set(i, number(env, values[i]));
  return array;
}

const char* name_of(ModelFamily family) {
  switch (family) {
    case ModelFamily::Llama: return "llama";
    case ModelFamily::Mistral: return "mistral";
    case ModelFamily::Qwen2: return "qwen2";
    case ModelFamily::Qwen3: return "qwen3";
  }
  return "";
}

const char* name_of(StopReason reason) {
  switch (reason) {
    case StopReason::Length: return "length";
    case StopReason::Token: return "token";
    case StopReason::Text: return "text";
  }
  return "";
}

Napi::Value config_to_js(Napi::Env env, const ModelConfig& config) {
  auto object = Napi::Object::New(env);
  object.Set("family", name_of(config.family));
  object.Set("vocabSize", number(env, config.vocab_size));
  object.Set("hiddenSize", number(env, config.hidden_size));
  object.Set("intermediateSize", number(env, config.intermediate_size));
  object.Set("numLayers", number(env, config.num_layers));
  object.Set("numHeads", number(env, config.num_heads));
  object.Set("numKvHeads", number(env, config.num_kv_heads));
  object.Set("headDim", number(env, config.head_dim));
  object.Set("tieWordEmbeddings", config.tie_word_embeddings);
  object.Set("maxPositionEmbeddings", number(env, config.max_position_embeddings));
  object.Set("bosTokenId", number(env, config.bos_token_id));
  object.Set("eosTokenIds", numbers(env, config.eos_token_ids));
  object.Set("padTokenId", number(env, config.pad_token_id));
  object.Set("dtype", name_of(config.dtype));
  return object;
}

Napi::Value rollout_to_js(Napi::Env env, const Rollout& rollout) {
  auto object = Napi::Object::New(env);
  object.Set("segment", number(env, rollout.segment));
  object.Set("tokens", typed_array(env, rollout.tokens));
  object.Set("logprobs", typed_array(env, rollout.logprobs));
  object.Set("stop", name_of(rollout.stop));
  return object;
}

Napi::Value statistics_to_js(Napi::Env env, const TermStatistics& statistics) {
  auto object = Napi::Object::New(env);
  object.Set("loss", statistics.loss);
  object.Set("tokens", statistics.tokens);
  object.Set("entropy", statistics.entropy);
  object.Set("logprob", statistics.logprob);
  object.Set("clipLow", statistics.clip_low);
  object.Set("clipHigh", statistics.clip_high);
  object.Set("clipRegion", statistics.clip_region);
  object.Set("dualClip", statistics.dual_clip);
  object.Set("ratioMean", statistics.ratio_mean);
  object.Set("ratioMax", statistics.ratio_max);
  object.Set("approximateKl", statistics.approximate_kl);
  object.Set("kl", statistics.kl);
  return object;
}

}  // namespace

Napi::Value to_js(Napi::Env env, const Nothing&) { return env.Undefined(); }

Napi::Value to_js(Napi::Env env, const EngineFacts& facts) {
  auto parameters = Napi::Array::New(env, facts.parameters.size());
  for (std::uint32_t i = 0; i < facts.parameters.size(); ++i) {
    auto parameter = Napi::Object::New(env);
    parameter.Set("name", facts.parameters[i].name);
    parameter.Set("shape", numbers(env, facts.parameters[i].shape));
    parameter.Set("dtype", name_of(facts.parameters[i].dtype));
    parameters.Set(i, parameter);
  }
  auto object = Napi::Object::New(env);
  object.Set("config", config_to_js(env, facts.config));
  object.Set("device", facts.device);
  object.Set("deviceDescription", facts.description);
  object.Set("parameters", parameters);
  return object;
}

Napi::Value to_js(Napi::Env env, const ScoreResult& result) {
  auto object = Napi::Object::New(env);
  object.Set("logprobs", typed_array(env, result.logprobs));
  object.Set("argmax", typed_array(env, result.argmax));
  object.Set("entropy", typed_array(env, result.entropy));
  object.Set("topEntropy", typed_array(env, result.top_entropy));
  object.Set("logits", typed_array(env, result.logits));
  return object;
}

Napi::Value to_js(Napi::Env env, const SampleResult& result) {
  auto rollouts = Napi::Array::New(env, result.rollouts.size());
  for (std::uint32_t i = 0; i < result.rollouts.size(); ++i) {
    const Napi::HandleScope scope(env);
    rollouts.Set(i, rollout_to_js(env, result.rollouts[i]));
  }
  auto statistics = Napi::Object::New(env);
  statistics.Set("prefillTokens", number(env, result.statistics.prefill_tokens));
  statistics.Set("decodeTokens", number(env, result.statistics.decode_tokens));
  statistics.Set("decodeSteps", number(env, result.statistics.decode_steps));
  statistics.Set("waves", number(env, result.statistics.waves));
  statistics.Set("keptTokens", number(env, result.statistics.kept_tokens));
  auto object = Napi::Object::New(env);
  object.Set("rollouts", rollouts);
  object.Set("statistics", statistics);
  return object;
}

Napi::Value to_js(Napi::Env env, const AccumulateResult& result) {
  auto terms = Napi::Array::New(env, result.terms.size());
  for (std::uint32_t i = 0; i < result.terms.size(); ++i) terms.Set(i, statistics_to_js(env, result.terms[i]));
  auto object = Napi::Object::New(env);
  object.Set("loss", result.loss);
  object.Set("terms", terms);
  object.Set("tokens", number(env, result.tokens));
  object.Set("keptTokens", number(env, result.kept_tokens));
  object.Set("microBatches", number(env, result.micro_batches));
  return object;
}

Napi::Value to_js(Napi::Env env, const StepResult& result) {
  auto object = Napi::Object::New(env);
  object.Set("gradNorm", result.grad_norm);
  object.Set("step", number(env, result.step));
  return object;
}

Napi::Value to_js(Napi::Env env, const std::vector<MemoryItem>& plan) {
  auto array = Napi::Array::New(env, plan.size());
  for (std::uint32_t i = 0; i < plan.size(); ++i) {
    auto item = Napi::Object::New(env);
    item.Set("name", plan[i].name);
    item.Set("bytes", number(env, static_cast<std::int64_t>(plan[i].bytes)));
    array.Set(i, item);
  }
  return array;
}

Napi::Value to_js(Napi::Env env, const std::vector<float>& values) { return typed_array(env, values); }

}  // namespace foretoken
