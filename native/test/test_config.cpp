#include "core/json.h"
#include "model/config.h"
#include "test/files.h"
#include "test/test.h"

using namespace foretoken;
using namespace foretoken::test;

namespace {

const char* minimal = R"({"model_type":"llama","vocab_size":32,"hidden_size":16,"intermediate_size":24,)"
                      R"("num_hidden_layers":2,"num_attention_heads":4})";

/// A config with members replaced or added; a JSON text of "-" removes one.
std::string with(const std::vector<std::pair<std::string, std::string>>& changes, const std::string& base = minimal) {
  json::Object members = *json::parse(base, "base", ErrorCode::Internal).as_object();
  for (const auto& [key, text] : changes) {
    std::erase_if(members, [&](const json::Member& member) { return member.key == key; });
    if (text != "-") members.push_back({key, json::parse(text, key, ErrorCode::Internal)});
  }
  return json::write(members);
}

ModelConfig parse(const std::string& text) { return parse_config(text, "config.json"); }

std::string qwen(const std::vector<std::pair<std::string, std::string>>& changes = {}) {
  return with(changes, with({{"model_type", "\"qwen3\""}, {"num_key_value_heads", "2"}}));
}

/// Expects this code, and the field's name in the message.
void check_refused(ErrorCode code, const std::string& text, const std::string& field) {
  CHECK_FAILS(code, parse(text));
  CHECK(contains(message_of([&] { parse(text); }), "config.json: " + field + " "));
}

}  // namespace

TEST("config: both spellings of every fixture describe the same model") {
  int compared = 0;
  for (const auto& entry : std::filesystem::directory_iterator(fixture(""))) {
    if (!std::filesystem::exists(entry.path() / "config_v4.json")) continue;  // other fixtures lie there, too
    const ModelConfig v5 = parse(read_file(entry.path() / "config.json"));
    const ModelConfig v4 = parse(read_file(entry.path() / "config_v4.json"));
    CHECK(v4 == v5);
    ++compared;
  }
  CHECK(compared >= 8);
}

TEST("config: what is written is read back as the same model") {
  for (const auto& entry : std::filesystem::directory_iterator(fixture(""))) {
    if (!std::filesystem::exists(entry.path() / "config_v4.json")) continue;  // other fixtures lie there, too
    const ModelConfig config = parse(read_file(entry.path() / "config.json"));
    CHECK(parse(to_config_json(config)) == config);
  }
  for (const std::string& text :
       {std::string(minimal), qwen(),
        qwen({{"layer_types", R"(["sliding_attention","full_attention"])"},
              {"use_sliding_window", "true"},
              {"sliding_window", "8"},
              {"eos_token_id", "[3, 4]"}}),
        with({{"rope_scaling",
               R"({"rope_type":"yarn","factor":4,"mscale":1.0,"mscale_all_dim":0.5,"truncate":false})"}})}) {
    CHECK(parse(to_config_json(parse(text))) == parse(text));
  }
}

TEST("config: published models are read as their cards say") {
  const auto configs = repository().parent_path() / "shared" / "models" / "configs";
  if (!std::filesystem::exists(configs)) SKIP("no published configurations beside the repository");
  const ModelConfig llama = parse(read_file(configs / "Llama-3.2-1B-Instruct.json"));
  CHECK(llama.rope.type == RopeType::Llama3 && llama.rope.factor == 32.0 && llama.rope.theta == 500000.0);
  CHECK(llama.head_dim == 64 && llama.num_kv_heads == 8 && llama.tie_word_embeddings && llama.dtype == DType::BFloat16);
  const ModelConfig qwen2 = parse(read_file(configs / "Qwen2.5-14B.json"));
  CHECK(qwen2.qkv_bias && !qwen2.output_bias && !qwen2.tie_word_embeddings && qwen2.head_dim == 128);
  CHECK(qwen2.windows == std::vector<std::int64_t>(48, 0));
  const ModelConfig qwen3 = parse(read_file(configs / "Qwen3-4B.json"));
  CHECK(qwen3.qk_norm && !qwen3.qkv_bias && qwen3.head_dim == 128 && qwen3.query_width() == 4096);
}

TEST("config: a silent config takes its family's defaults") {
  const ModelConfig llama = parse(minimal);
  CHECK(llama.num_kv_heads == 4 && llama.head_dim == 4 && llama.max_position_embeddings == 2048);
  CHECK(llama.rms_norm_eps == 1e-6 && !llama.tie_word_embeddings && llama.rope == RopeConfig{});
  CHECK(llama.bos_token_id == 1 && llama.eos_token_ids == std::vector<std::int64_t>{2});

  const ModelConfig mistral = parse(with({{"model_type", "\"mistral\""}, {"num_key_value_heads", "4"}}));
  CHECK(mistral.windows == std::vector<std::int64_t>(2, 4096));
  const ModelConfig wide =
      parse(with({{"model_type", "\"mistral\""}, {"num_key_value_heads", "null"}, {"sliding_window", "null"}}));
  CHECK(wide.num_kv_heads == 4 && wide.windows == std::vector<std::int64_t>(2, 0));

  CHECK_EQ(parse(qwen()).head_dim, 128);
  CHECK_EQ(parse(qwen({{"head_dim", "null"}})).head_dim, 4);
  CHECK(parse(qwen()).eos_token_ids.empty());
}

TEST("config: biases are those of the family") {
  const ModelConfig llama = parse(with({{"attention_bias", "true"}, {"mlp_bias", "true"}}));
  CHECK(llama.qkv_bias && llama.output_bias && llama.mlp_bias);
  const ModelConfig qwen2 = parse(qwen({{"model_type", "\"qwen2\""}}));
  CHECK(qwen2.qkv_bias && !qwen2.output_bias && !qwen2.qk_norm);
  CHECK(parse(qwen({{"attention_bias", "true"}})).output_bias);
  check_refused(ErrorCode::UnsupportedConfig, qwen({{"model_type", "\"qwen2\""}, {"attention_bias", "false"}}),
                "attention_bias");
  check_refused(ErrorCode::UnsupportedConfig, qwen({{"mlp_bias", "true"}}), "mlp_bias");
}

TEST("config: windows follow use_sliding_window, max_window_layers and layer_types") {
  using Windows = std::vector<std::int64_t>;
  CHECK(parse(qwen({{"sliding_window", "8"}, {"max_window_layers", "1"}})).windows == Windows({0, 0}));
  CHECK(parse(qwen({{"use_sliding_window", "true"}, {"sliding_window", "8"}, {"max_window_layers", "1"}})).windows ==
        Windows({0, 8}));
  CHECK(parse(qwen({{"use_sliding_window", "true"},
                    {"sliding_window", "8"},
                    {"max_window_layers", "1"},
                    {"layer_types", R"(["sliding_attention","full_attention"])"}}))
            .windows == Windows({8, 0}));
  check_refused(ErrorCode::InvalidConfig, qwen({{"layer_types", R"(["sliding_attention","full_attention"])"}}),
                "layer_types");
  check_refused(ErrorCode::InvalidConfig, qwen({{"layer_types", R"(["full_attention"])"}}), "layer_types");
  check_refused(ErrorCode::UnsupportedConfig, qwen({{"layer_types", R"(["full_attention","chunked_attention"])"}}),
                "layer_types");
  check_refused(ErrorCode::UnsupportedConfig, with({{"sliding_window", "8"}}), "sliding_window");
  check_refused(ErrorCode::UnsupportedConfig,
                with({{"model_type", "\"mistral\""},
                      {"num_key_value_heads", "4"},
                      {"layer_types", R"(["full_attention","full_attention"])"}}),
                "layer_types");
}

TEST("config: what is not implemented is refused by name") {
  const std::vector<std::pair<std::string, std::string>> unsupported = {
      {"model_type", "\"gemma2\""},
      {"architectures", R"(["LlamaForSequenceClassification"])"},
      {"quantization_config", R"({"bits":4})"},
      {"num_experts", "8"},
      {"attn_logit_softcapping", "50.0"},
      {"hidden_act", "\"gelu\""},
      {"partial_rotary_factor", "0.5"},
      {"auto_map", "{}"},
      {"is_encoder_decoder", "true"},
      {"rope_interleaved", "true"},
      {"torch_dtype", "\"float8_e4m3fn\""},
      {"embedding_multiplier", "12.0"},
      {"some_new_field", "false"},
      {"pruned_heads", R"({"0":[1]})"}};
  for (const auto& [field, text] : unsupported)
    check_refused(ErrorCode::UnsupportedConfig, with({{field, text}}), field);
  const std::vector<std::pair<std::string, std::string>> ropes = {
      {R"({"rope_type":"longrope","factor":2.0})", "rope_scaling.rope_type"},
      {R"({"type":"mrope"})", "rope_scaling.rope_type"},
      {R"({"rope_type":"linear","factor":2.0,"beta_fast":4.0})", "rope_scaling.beta_fast"},
      {R"({"factor":2.0})", "rope_scaling.factor"},
      {R"({"rope_type":"default","partial_rotary_factor":0.5})", "rope_scaling.partial_rotary_factor"},
      {R"({"full_attention":{"rope_type":"default"}})", "rope_scaling.full_attention"}};
  for (const auto& [text, field] : ropes)
    check_refused(ErrorCode::UnsupportedConfig, with({{"rope_scaling", text}}), field);
}

TEST("config: wrong types, absurd values and contradictions are refused by name") {
  const std::vector<std::pair<std::string, std::string>> invalid = {{"vocab_size", "-"},
                                                                    {"vocab_size", "0"}, {"vocab_size", "1e3"},
                                                                    {"vocab_size", "\"32\""},
                                                                    {"vocab_size", "99999999999999999999"},
                                                                    {"hidden_size", "-16"}, {"hidden_size", "17"},
                                                                    {"hidden_size", "1099511627776"},
                                                                    {"num_hidden_layers", "0"},
                                                                    {"num_hidden_layers", "100000"},
                                                                    {"num_key_value_heads", "3"},
                                                                    {"num_key_value_heads", "0"}, {"head_dim", "5"},
                                                                    {"head_dim", "[]"}, {"rms_norm_eps", "0"},
                                                                    {"rms_norm_eps", "-1e-6"},
                                                                    {"rms_norm_eps", "\"1e-6\""},
                                                                    {"tie_word_embeddings", "1"},
                                                                    {"initializer_range", "-0.1"},
                                                                    {"max_position_embeddings", "0"},
                                                                    {"eos_token_id", "32"},
                                                                    {"eos_token_id", "[1, -1]"},
                                                                    {"bos_token_id", "1.5"}, {"rope_theta", "0.5"},
                                                                    {"rope_theta", "true"}, {"model_type", "-"}};
  for (const auto& [field, text] : invalid) check_refused(ErrorCode::InvalidConfig, with({{field, text}}), field);
  check_refused(ErrorCode::InvalidConfig, with({{"torch_dtype", "\"float32\""}, {"dtype", "\"bfloat16\""}}), "dtype");
  check_refused(ErrorCode::InvalidConfig, with({{"rope_scaling", R"({"rope_type":"linear","factor":0.5})"}}),
                "rope_scaling.factor");
  check_refused(ErrorCode::InvalidConfig, with({{"rope_scaling", R"({"rope_type":"linear"})"}}), "rope_scaling.factor");
  check_refused(ErrorCode::InvalidConfig,
                with({{"rope_scaling", R"({"rope_type":"linear","type":"yarn","factor":2})"}}),
                "rope_scaling.rope_type");
  check_refused(ErrorCode::InvalidConfig,
                with({{"rope_theta", "100.0"}, {"rope_parameters", R"({"rope_theta":200.0})"}}),
                "rope_parameters.rope_theta");
  check_refused(ErrorCode::InvalidConfig,
                with({{"rope_scaling", R"({"rope_type":"linear","factor":2})"},
                      {"rope_parameters", R"({"rope_type":"default","rope_theta":10000.0})"}}),
                "rope_scaling");
  check_refused(
      ErrorCode::InvalidConfig,
      with({{"rope_scaling", R"({"rope_type":"llama3","factor":8,"low_freq_factor":4,"high_freq_factor":4})"}}),
      "rope_scaling.high_freq_factor");
  CHECK_FAILS(ErrorCode::InvalidConfig, parse("[]"));
  CHECK_FAILS(ErrorCode::InvalidConfig, parse("{\"model_type\": NaN}"));
}

TEST("config: a null says nothing, and harmless members are accepted") {
  CHECK(parse(with({{"quantization_config", "null"},
                    {"rope_scaling", "null"}, {"head_dim", "null"}, {"use_cache", "true"},
                    {"transformers_version", "\"4.57.1\""}, {"attention_dropout", "0.1"},
                    {"partial_rotary_factor", "1"}, {"pad_token_id", "-1"},
                    {"is_encoder_decoder", "false"}})) == parse(minimal));
}

TEST("config: original_max_position_embeddings defaults to max_position_embeddings for llama3 and yarn") {
  const ModelConfig config =
      parse(with({{"max_position_embeddings", "512"}, {"rope_scaling", R"({"type":"yarn","factor":4})"}}));
  CHECK_EQ(config.rope.original_max_position_embeddings, 512);
  CHECK(config.rope.beta_fast == 32.0 && config.rope.beta_slow == 1.0 && config.rope.truncate &&
        !config.rope.attention_factor);
}
