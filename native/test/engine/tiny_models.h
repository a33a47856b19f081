#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/philox.h"
#include "engine/engine.h"

namespace foretoken::test {

struct TinyModel {
  const char* name;
  const char* config;
};

/// Small shapes that between them have every feature of a block, with widths that are no multiple of a vector.
inline const std::vector<TinyModel>& tiny_models() {
  static const std::vector<TinyModel> models{
      {"qwen3, tied, head_dim apart", R"({"model_type": "qwen3", "vocab_size": 67, "hidden_size": 40, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 56,
        "tie_word_embeddings": true, "max_position_embeddings": 256})"},
      {"llama, untied, all biases", R"({"model_type": "llama", "vocab_size": 50, "hidden_size": 36, "num_hidden_layers": 2,
        "num_attention_heads": 3, "num_key_value_heads": 1, "intermediate_size": 44, "attention_bias": true,
        "mlp_bias": true, "tie_word_embeddings": false, "max_position_embeddings": 256})"},
      {"mistral, window", R"({"model_type": "mistral", "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 3,
        "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 20, "intermediate_size": 48,
        "sliding_window": 7, "max_position_embeddings": 256})"},
  };
  return models;
}

inline std::unique_ptr<Engine> tiny_engine(const TinyModel& model, const EngineOptions& options, std::uint64_t seed = 3) {
  Initialisation initialisation;
  initialisation.seed = seed;
  initialisation.embedding = 1;
  initialisation.head = 0.3;
  initialisation.projection = 1;
  initialisation.output_projection = 0.7;
  initialisation.scale_by_fan_in = true;
  return Engine::create(model.config, initialisation, options);
}

inline EngineOptions cpu(DType dtype = DType::Float32, int threads = 2) {
  EngineOptions options;
  options.device = "cpu";
  options.dtype = dtype;
  options.threads = threads;
  return options;
}

inline EngineOptions reference() {
  EngineOptions options;
  options.device = "reference";
  return options;
}

inline std::vector<std::int32_t> some_tokens(std::int64_t count, std::int64_t vocabulary, std::uint32_t stream) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<std::int32_t>(random_words(11, RandomUse::Sampling, stream, i)[0] %
                                          static_cast<std::uint32_t>(vocabulary));
  return tokens;
}

/// Two trees: a document with questions hanging off two cuts and rollouts below them, and a lone sequence.
/// Segments begin inside pages of every size, at their borders, and are as short as one token.
inline TokenForest some_forest(std::int64_t vocabulary) {
  TokenForest forest;
  const auto add = [&](std::int32_t parent, std::int64_t length) {
    return forest.add(parent, some_tokens(length, vocabulary, static_cast<std::uint32_t>(forest.segments().size())));
  };
  const std::int32_t document = add(-1, 21), further = add(document, 11);
  const std::int32_t question = add(document, 1), other = add(further, 5);
  for (const int length : {3, 18, 1}) add(question, length);
  for (const int length : {27, 2}) add(other, length);
  add(-1, 33);
  return forest;
}

/// The tokens from the root down to the end of a segment.
inline std::vector<std::int32_t> path_tokens(const TokenForest& forest, std::int32_t segment) {
  std::vector<std::int32_t> path;
  for (std::int32_t up = segment; up >= 0; up = forest.segments()[up].parent) {
    const Segment& s = forest.segments()[up];
    path.insert(path.begin(), forest.tokens().begin() + s.begin, forest.tokens().begin() + s.begin + s.length);
  }
  return path;
}

/// Of all parameters, in their order.
inline std::vector<std::vector<float>> gradients_of(Engine& engine) {
  std::vector<std::vector<float>> gradients;
  for (const ParameterInfo& parameter : engine.parameters())
    gradients.push_back(engine.read(parameter.name, TensorKind::Gradient));
  return gradients;
}

}  // namespace foretoken::test
