#include "model/checkpoint.h"

#include <algorithm>
#include <cmath>

#include "core/json.h"
#include "test/files.h"
#include "test/test.h"

using namespace foretoken;
using namespace foretoken::test;
namespace fs = std::filesystem;

namespace {

/// A tied llama of two layers; small enough to write out whole.
std::string tiny_config(const std::string& more = "") {
  return R"({"model_type":"llama","vocab_size":8,"hidden_size":4,"intermediate_size":6,"num_hidden_layers":2,)"
         R"("num_attention_heads":2,"num_key_value_heads":1,"tie_word_embeddings":true)" +
         more + "}";
}

/// Element (row, col) of parameter p in every checkpoint these tests write; exact in bfloat16 and float16.
float pattern(std::size_t p, std::int64_t element) {
  return static_cast<float>((static_cast<std::int64_t>(p) * 7 + element) % 97 - 48);
}

ReadRows pattern_rows(const ModelConfig& config) {
  return
      [specs = parameter_specs(config)](const ParameterSpec& spec, std::int64_t begin, std::int64_t count, float* out) {
        std::size_t p = 0;
        while (specs[p].name != spec.name) ++p;
        for (std::int64_t i = 0; i < count * spec.cols(); ++i) out[i] = pattern(p, begin * spec.cols() + i);
      };
}

void save_tiny(const fs::path& directory, const SaveOptions& options = {}) {
  const ModelConfig config = parse_config(tiny_config(), "tiny");
  save_checkpoint(directory, config, options, pattern_rows(config));
}

std::vector<float> read(const Checkpoint& checkpoint, std::size_t p) {
  std::vector<float> values(static_cast<std::size_t>(checkpoint.parameters()[p].elements()));
  checkpoint.read(p, values.data());
  return values;
}

float second_weight(const Checkpoint& checkpoint) { return read(checkpoint, 0)[1]; }

void check_same_weights(const Checkpoint& a, const Checkpoint& b) {
  CHECK_EQ(a.parameters().size(), b.parameters().size());
  for (std::size_t p = 0; p < a.parameters().size(); ++p) CHECK(read(a, p) == read(b, p));
}

/// Writes a whole model of zeros as one safetensors file, after `change` had its way with the tensors' entries.
template <typename Change>
fs::path write_model(const TemporaryDirectory& scratch, const std::string& config, const Change& change) {
  std::vector<std::pair<std::string, std::vector<std::int64_t>>> tensors;
  for (const ParameterSpec& spec : parameter_specs(parse_config(config, "config")))
    tensors.push_back({spec.name, spec.shape});
  change(tensors);
  json::Object header;
  std::int64_t offset = 0;
  for (const auto& [name, shape] : tensors) {
    std::int64_t bytes = 4;
    for (const std::int64_t size : shape) bytes *= size;
    header.push_back({name, json::Object{{"dtype", "F32"},
                                         {"shape", json::Array(shape.begin(), shape.end())},
                                         {"data_offsets", json::Array{offset, offset + bytes}}}});
    offset += bytes;
  }
  write_file(scratch / "config.json", config);
  write_file(scratch / "model.safetensors",
             safetensors_bytes(json::write(header), std::string(static_cast<std::size_t>(offset), '\0')));
  return scratch.path();
}

std::string refusal(const fs::path& directory) {
  return message_of([&] { Checkpoint::open(directory); });
}

}  // namespace

TEST("checkpoint: parameters come in the order of memory, with Hugging Face names and shapes") {
  const ModelConfig config = parse_config(tiny_config(R"(,"attention_bias":true,"mlp_bias":true)"), "tiny");
  std::string names;
  for (const ParameterSpec& spec : parameter_specs(config)) {
    if (spec.name.find("layers.1") == std::string::npos) names += spec.name.substr(6) + " ";
  }
  CHECK_EQ(
      names,
      "embed_tokens.weight layers.0.input_layernorm.weight layers.0.self_attn.q_proj.weight "
      "layers.0.self_attn.k_proj.weight layers.0.self_attn.v_proj.weight layers.0.self_attn.q_proj.bias "
      "layers.0.self_attn.k_proj.bias layers.0.self_attn.v_proj.bias layers.0.self_attn.o_proj.weight "
      "layers.0.self_attn.o_proj.bias layers.0.post_attention_layernorm.weight layers.0.mlp.gate_proj.weight "
      "layers.0.mlp.up_proj.weight layers.0.mlp.gate_proj.bias layers.0.mlp.up_proj.bias layers.0.mlp.down_proj.weight "
      "layers.0.mlp.down_proj.bias norm.weight ");
}

TEST("checkpoint: decay spares norms and biases only") {
  const ModelConfig config = parse_config(tiny_config(R"(,"attention_bias":true)"), "tiny");
  for (const ParameterSpec& spec : parameter_specs(config)) CHECK_EQ(spec.decays(), spec.shape.size() == 2);
}

TEST("checkpoint: every fixture of transformers opens, single and sharded, in each dtype") {
  int opened = 0;
  for (const auto& entry : fs::directory_iterator(fixture(""))) {
    if (!std::filesystem::exists(entry.path() / "config_v4.json")) continue;  // other fixtures lie there, too
    const Checkpoint checkpoint = Checkpoint::open(entry.path());
    for (std::size_t p = 0; p < checkpoint.parameters().size(); ++p) {
      double magnitude = 0;
      for (const float value : read(checkpoint, p)) magnitude += std::fabs(value);
      CHECK(magnitude > 0);
    }
    ++opened;
  }
  CHECK(opened >= 8);
}

TEST("checkpoint: a saved checkpoint opens with the same weights and config, whole or in shards") {
  for (const char* name : {"llama-sharded-bfloat16", "qwen2-float16", "qwen3-bias-untied"}) {
    const Checkpoint original = Checkpoint::open(fixture(name));
    const ReadRows rows = [&](const ParameterSpec& spec, std::int64_t begin, std::int64_t count, float* out) {
      std::size_t index = 0;
      while (original.parameters()[index].name != spec.name) ++index;
      CHECK(original.read_rows(index, begin, count, out));
    };
    for (const std::int64_t shard : {std::int64_t{20000}, std::int64_t{5'000'000'000}}) {
      const TemporaryDirectory scratch;
      save_checkpoint(
          scratch / "out", original.config(),
          {.dtype = original.config().dtype, .max_shard_bytes = shard, .config_json = original.config_json()}, rows);
      const Checkpoint copy = Checkpoint::open(scratch / "out");
      CHECK(copy.config() == original.config());
      CHECK_EQ(copy.config_json(), original.config_json());
      check_same_weights(original, copy);
    }
  }
}

TEST("checkpoint: rows are read alike whole and in parts, as float32 and as bfloat16") {
  const Checkpoint checkpoint = Checkpoint::open(fixture("qwen3-bias-untied"));
  for (std::size_t p = 0; p < checkpoint.parameters().size(); ++p) {
    const ParameterSpec& spec = checkpoint.parameters()[p];
    const std::vector<float> whole = read(checkpoint, p);
    std::vector<float> row(static_cast<std::size_t>(spec.cols()));
    std::vector<BFloat16> narrow(row.size());
    for (std::int64_t r = 0; r < spec.rows(); ++r) {
      CHECK(checkpoint.read_rows(p, r, 1, row.data()));
      CHECK(checkpoint.read_rows(p, r, 1, narrow.data()));
      for (std::size_t i = 0; i < row.size(); ++i) {
        CHECK_EQ(row[i], whole[static_cast<std::size_t>(r) * row.size() + i]);
        CHECK_EQ(narrow[i].bits, BFloat16(row[i]).bits);
      }
    }
  }
}

TEST("checkpoint: saving in another dtype says so in config.json and leaves the rest of it") {
  const TemporaryDirectory scratch;
  const std::string text = tiny_config(R"(,"torch_dtype":"bfloat16","transformers_version":"4.57.1")");
  save_tiny(scratch / "out", {.dtype = DType::Float16, .config_json = text});
  const std::string saved = read_file(scratch / "out/config.json");
  CHECK(contains(saved, R"("torch_dtype": "float16")") && contains(saved, R"("transformers_version": "4.57.1")"));
  CHECK(Checkpoint::open(scratch / "out").config().dtype == DType::Float16);
  save_tiny(scratch / "out", {.dtype = DType::BFloat16, .config_json = text});
  CHECK_EQ(read_file(scratch / "out/config.json"), text);
  save_tiny(scratch / "out", {.dtype = DType::BFloat16, .config_json = tiny_config()});
  CHECK(Checkpoint::open(scratch / "out").config().dtype == DType::BFloat16);
}

TEST("checkpoint: tokenizer files come along, other files do not, and saving over itself keeps them") {
  const TemporaryDirectory scratch;
  save_tiny(scratch / "model");
  write_file(scratch / "model/tokenizer.json", "{\"a\":1}");
  write_file(scratch / "model/chat_template.jinja", "{{ x }}");
  const Checkpoint opened = Checkpoint::open(scratch / "model");
  save_tiny(scratch / "model", {.config_json = opened.config_json(), .companions = opened.directory()});
  CHECK_EQ(read_file(scratch / "model/tokenizer.json"), "{\"a\":1}");
  CHECK_EQ(read_file(scratch / "model/chat_template.jinja"), "{{ x }}");
  CHECK_EQ(second_weight(opened), pattern(0, 1));  // the replaced file is still mapped

  write_file(scratch / "model/notes.md", "mine");
  CHECK_FAILS(ErrorCode::InvalidArgument, save_tiny(scratch / "model"));
  save_tiny(scratch / "other", {.companions = scratch / "model"});
  CHECK(fs::exists(scratch / "other/tokenizer.json") && !fs::exists(scratch / "other/notes.md"));
}

TEST("checkpoint: weights that are not finite are neither saved nor read, and the old checkpoint stays") {
  const TemporaryDirectory scratch;
  save_tiny(scratch / "model");
  const ModelConfig config = parse_config(tiny_config(), "tiny");
  const auto save_broken = [&] {
    save_checkpoint(scratch / "model", config, {},
                    [](const ParameterSpec& spec, std::int64_t, std::int64_t count, float* out) {
                      std::fill(out, out + count * spec.cols(), spec.name == "model.norm.weight" ? NAN : 0.0f);
                    });
  };
  CHECK_FAILS(ErrorCode::NonFinite, save_broken());
  CHECK(contains(message_of(save_broken), "model.norm.weight"));
  CHECK_EQ(second_weight(Checkpoint::open(scratch / "model")), pattern(0, 1));

  std::string bytes = read_file(scratch / "model/model.safetensors");
  bytes.replace(bytes.size() - 4, 4, std::string("\0\0\x80\x7f", 4));  // infinity in the last tensor, the final norm
  write_file(scratch / "model/model.safetensors", bytes);
  const Checkpoint broken = Checkpoint::open(scratch / "model");
  const std::size_t last = broken.parameters().size() - 1;
  CHECK_FAILS(ErrorCode::NonFinite, read(broken, last));
  CHECK(contains(message_of([&] { read(broken, last); }), "model.norm.weight"));
  read(broken, last - 1);
}

TEST("checkpoint: a missing, misshapen, unexpected or unreadable tensor is refused by name") {
  using Tensors = std::vector<std::pair<std::string, std::vector<std::int64_t>>>;
  const auto refused = [](const std::string& config, auto change) {
    const TemporaryDirectory scratch;
    return refusal(write_model(scratch, config, change));
  };
  CHECK_EQ(refused(tiny_config(), [](Tensors&) {}), "");
  CHECK(contains(refused(tiny_config(), [](Tensors& t) { t.erase(t.begin() + 1); }),
                 "model.layers.0.input_layernorm.weight of shape (4) is missing"));
  CHECK(contains(refused(tiny_config(), [](Tensors& t) { t[2].second = {4, 5}; }),
                 "q_proj.weight has shape (4, 5), but config.json calls for (4, 4)"));
  CHECK(contains(refused(tiny_config(), [](Tensors& t) { t[2].second = {16}; }), "has shape (16)"));
  CHECK(contains(refused(tiny_config(), [](Tensors& t) { t.push_back({"model.layers.0.self_attn.q_proj.bias", {4}}); }),
                 "q_proj.bias\" has no place"));
  CHECK(
      contains(refused(tiny_config(), [](Tensors& t) { t.push_back({"model.layers.2.input_layernorm.weight", {4}}); }),
               "has no place"));
  CHECK_EQ(
      refused(tiny_config(), [](Tensors& t) { t.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", {1}}); }),
      "");
  CHECK_EQ(refused(tiny_config(), [](Tensors& t) { t.push_back({"lm_head.weight", {8, 4}}); }), "");
  CHECK(contains(refused(tiny_config(), [](Tensors& t) { t.push_back({"lm_head.weight", {8, 3}}); }),
                 "lm_head.weight differs"));
}

TEST("checkpoint: a tied model whose head differs from its embedding contradicts itself") {
  const TemporaryDirectory scratch;
  write_model(scratch, tiny_config(), [](auto& tensors) { tensors.push_back({"lm_head.weight", {8, 4}}); });
  std::string bytes = read_file(scratch / "model.safetensors");
  bytes.back() = '\x3f';
  write_file(scratch / "model.safetensors", bytes);
  CHECK_FAILS(ErrorCode::InvalidCheckpoint, Checkpoint::open(scratch.path()));
}

TEST("checkpoint: an untied model without a head says how it might be meant") {
  const TemporaryDirectory scratch;
  save_tiny(scratch / "model");
  std::string config = tiny_config();
  config.replace(config.find("true"), 4, "false");
  write_file(scratch / "model/config.json", config);
  CHECK(contains(refusal(scratch / "model"),
                 "lm_head.weight of shape (8, 4) is missing, which config.json calls for (unless tie_word_embeddings"));
}

TEST("checkpoint: what is no model directory is an Io error that names it") {
  const TemporaryDirectory scratch;
  CHECK_FAILS(ErrorCode::Io, Checkpoint::open(scratch / "nowhere"));
  CHECK_FAILS(ErrorCode::Io, Checkpoint::open(scratch.path()));
  write_file(scratch / "config.json", tiny_config());
  write_file(scratch / "pytorch_model.bin", "");
  CHECK_FAILS(ErrorCode::Io, Checkpoint::open(scratch.path()));
  CHECK(contains(refusal(scratch.path()), "only safetensors are read"));
}
