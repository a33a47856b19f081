#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/philox.h"

namespace foretoken::bench {

/// Shapes of published small models, to be filled with random weights.
struct Shape {
  const char* name;
  const char* config;
};

inline const Shape& shape_named(const std::string& name) {
  static constexpr Shape shapes[] = {
      {"qwen3-12m", R"({"model_type": "qwen3", "vocab_size": 8192, "hidden_size": 384, "num_hidden_layers": 6,
        "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 64, "intermediate_size": 1024,
        "tie_word_embeddings": true, "max_position_embeddings": 4096})"},
      {"smollm2-135m", R"({"model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "intermediate_size": 1536, "tie_word_embeddings": true,
        "max_position_embeddings": 8192})"},
      {"qwen2.5-0.5b", R"({"model_type": "qwen2", "vocab_size": 151936, "hidden_size": 896, "num_hidden_layers": 24,
        "num_attention_heads": 14, "num_key_value_heads": 2, "intermediate_size": 4864, "tie_word_embeddings": true,
        "max_position_embeddings": 32768})"},
      {"qwen2.5-1.5b", R"({"model_type": "qwen2", "vocab_size": 151936, "hidden_size": 1536, "num_hidden_layers": 28,
        "num_attention_heads": 12, "num_key_value_heads": 2, "intermediate_size": 8960, "tie_word_embeddings": true,
        "max_position_embeddings": 32768})"},
  };
  std::string known;
  for (const Shape& shape : shapes) {
    if (name == shape.name) return shape;
    known += std::string(known.empty() ? "" : ", ") + shape.name;
  }
  fail(ErrorCode::InvalidArgument, "unknown shape ", name, "; there are: ", known);
}

inline std::vector<std::int32_t> random_tokens(std::int64_t count, std::int64_t vocabulary, std::uint32_t stream) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<std::int32_t>(random_words(7, RandomUse::Sampling, stream, i)[0] %
                                          static_cast<std::uint32_t>(vocabulary));
  return tokens;
}

}  // namespace foretoken::bench
