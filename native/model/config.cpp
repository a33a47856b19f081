#include "model/config.h"

#include <array>
#include <cmath>
#include <limits>

#include "model/config_fields.h"

namespace foretoken {

namespace {

// With these bounds every product of sizes below stays far inside 64 bits: the largest matrix has 2^42 elements, all
// parameters together fewer than 2^56.
constexpr std::int64_t max_vocab = std::int64_t{1} << 24;
constexpr std::int64_t max_width = std::int64_t{1} << 18;
constexpr std::int64_t max_heads = 4096;
constexpr std::int64_t max_head_dim = 4096;
constexpr std::int64_t max_layers = 4096;
constexpr std::int64_t max_positions = std::numeric_limits<std::int32_t>::max();

/// What transformers assumes of a family where config.json is silent (configuration_*.py, versions 4.57 and 5.18).
struct FamilyDefaults {
  ModelFamily family;
  const char* model_type;
  const char* architecture;
  std::int64_t num_kv_heads;  // 0: as many as heads
  std::int64_t head_dim;      // 0: C / H
  std::int64_t max_position_embeddings;
  std::optional<std::int64_t> bos_token_id, eos_token_id;
};

constexpr std::array<FamilyDefaults, 4> families{{
    {ModelFamily::Llama, "llama", "LlamaForCausalLM", 0, 0, 2048, 1, 2},
    {ModelFamily::Mistral, "mistral", "MistralForCausalLM", 8, 0, 131072, 1, 2},
    {ModelFamily::Qwen2, "qwen2", "Qwen2ForCausalLM", 32, 0, 32768, {}, {}},
    {ModelFamily::Qwen3, "qwen3", "Qwen3ForCausalLM", 32, 128, 32768, {}, {}},
}};

/// Members that change nothing about log-probs: bookkeeping, how other programs run or generate, other tasks' heads.
constexpr auto harmless = std::to_array<const char*>({
    "_attn_implementation", "_attn_implementation_autoset", "_attn_implementation_internal", "_commit_hash",
    "_flash_attn_2_enabled", "_name_or_path", "attn_implementation", "chunk_size_feed_forward",
    "gradient_checkpointing", "is_decoder", "is_llama_config", "max_sequence_length", "model_max_length",
    "name_or_path", "output_attentions", "output_hidden_states", "pretraining_tp", "return_dict", "tf_legacy_loss",
    "torchscript", "transformers.js_config", "transformers_version", "unsloth_fixed", "unsloth_version",
    "use_bfloat16", "use_cache", "cls_token_id", "decoder_start_token_id", "mask_token_id", "prefix", "sep_token_id",
    "tokenizer_class", "unk_token_id", "finetuning_task", "id2label", "label2id", "num_labels", "problem_type",
    "task_specific_params", "bad_words_ids", "begin_suppress_tokens", "diversity_penalty", "do_sample",
    "early_stopping", "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "forced_bos_token_id",
    "forced_eos_token_id", "length_penalty", "max_length", "min_length", "no_repeat_ngram_size", "num_beam_groups",
    "num_beams", "num_return_sequences", "output_scores", "remove_invalid_values", "repetition_penalty",
    "return_dict_in_generate", "suppress_tokens", "temperature", "top_k", "top_p", "typical_p",
    "attention_dropout",  // see parse_config
});

const FamilyDefaults& read_family(ConfigFields& fields) {
  const std::string type = fields.text("model_type");
  for (const FamilyDefaults& defaults : families) {
    if (type != defaults.model_type) continue;
    if (const json::Value* names = fields.find("architectures")) {
      const json::Array* list = names->as_array();
      if (!list) fields.invalid("architectures", "must be an array of names");
      bool matches = list->empty();
      for (const json::Value& name : *list) matches |= name == json::Value(defaults.architecture);
      if (!matches) {
        fields.unsupported("architectures", json::write(*names, false) + " is not implemented for model_type '" + type +
                                                "'; " + defaults.architecture + " is");
      }
    }
    return defaults;
  }
  fields.unsupported("model_type", "'" + type + "' is not implemented; llama, mistral, qwen2 and qwen3 are");
}

void read_sizes(ConfigFields& fields, const FamilyDefaults& defaults, ModelConfig& config) {
  config.vocab_size = fields.integer("vocab_size", 1, max_vocab);
  config.hidden_size = fields.integer("hidden_size", 1, max_width);
  config.intermediate_size = fields.integer("intermediate_size", 1, max_width);
  config.num_layers = fields.integer("num_hidden_layers", 1, max_layers);
  config.num_heads = fields.integer("num_attention_heads", 1, max_heads);

  const bool said_null = fields.has("num_key_value_heads") && !fields.find("num_key_value_heads");
  const std::int64_t kv_heads = said_null || defaults.num_kv_heads == 0 ? config.num_heads : defaults.num_kv_heads;
  config.num_kv_heads = fields.integer("num_key_value_heads", 1, max_heads, kv_heads);
  if (config.num_heads % config.num_kv_heads != 0) {
    fields.invalid("num_key_value_heads", std::to_string(config.num_kv_heads) +
                                              " does not divide num_attention_heads " +
                                              std::to_string(config.num_heads));
  }

  std::int64_t head_dim = fields.has("head_dim") ? 0 : defaults.head_dim;
  if (!fields.find("head_dim") && head_dim == 0) {
    if (config.hidden_size % config.num_heads != 0) {
      fields.invalid("hidden_size", std::to_string(config.hidden_size) + " is not a multiple of num_attention_heads " +
                                        std::to_string(config.num_heads) + ", and head_dim is not given");
    }
    head_dim = config.hidden_size / config.num_heads;
  }
  config.head_dim = fields.integer("head_dim", 2, max_head_dim, head_dim);
  if (config.head_dim % 2 != 0 || config.head_dim > max_head_dim) {
    fields.invalid("head_dim",
                   std::to_string(config.head_dim) + " must be even and at most " + std::to_string(max_head_dim));
  }
  config.max_position_embeddings =
      fields.integer("max_position_embeddings", 1, max_positions, defaults.max_position_embeddings);
}

void read_biases(ConfigFields& fields, ModelConfig& config) {
  const bool llama = config.family == ModelFamily::Llama, qwen3 = config.family == ModelFamily::Qwen3;
  if (llama || qwen3) {
    config.qkv_bias = config.output_bias = fields.boolean("attention_bias", false);
  } else if (config.family == ModelFamily::Qwen2) {
    config.qkv_bias = true;
    fields.expect("attention_bias", true, "qwen2 always has biases on q, k and v");
  } else {
    fields.expect("attention_bias", false, "mistral has no biases");
  }
  if (llama) config.mlp_bias = fields.boolean("mlp_bias", false);
  else fields.expect("mlp_bias", false, "this family has no biases in its feed-forward layers");
  config.qk_norm = qwen3;
}

/// Which layers see a window only: mistral all of them, qwen from max_window_layers on or as layer_types says.
void read_windows(ConfigFields& fields, ModelConfig& config) {
  const std::size_t L = static_cast<std::size_t>(config.num_layers);
  std::vector<std::int64_t> windows(L, 0);
  std::int64_t window = 0;
  if (config.family == ModelFamily::Llama) {
    fields.expect("sliding_window", nullptr, "llama has no sliding window");
    fields.expect("use_sliding_window", false, "llama has no sliding window");
  } else if (config.family == ModelFamily::Mistral) {
    const bool said_null = fields.has("sliding_window") && !fields.find("sliding_window");
    if (!said_null) window = fields.integer("sliding_window", 1, max_positions, 4096);
    windows.assign(L, window);
  } else {
    // A window that is not in use may hold anything; qwen2.5 ships configs with both the number and `false`.
    if (fields.boolean("use_sliding_window", false) &&
        !(fields.has("sliding_window") && !fields.find("sliding_window"))) {
      window = fields.integer("sliding_window", 1, max_positions, 4096);
    }
    fields.find("sliding_window");
    const std::int64_t first = fields.integer("max_window_layers", 0, max_positions, 28);
    for (std::size_t l = 0; l < L; ++l) windows[l] = static_cast<std::int64_t>(l) >= first ? window : 0;
  }

  if (const json::Value* types = fields.find("layer_types")) {
    const json::Array* list = types->as_array();
    if (!list || list->size() != L) fields.invalid("layer_types", "must be an array of num_hidden_layers names");
    std::vector<std::int64_t> listed(L, 0);
    for (std::size_t l = 0; l < L; ++l) {
      const std::string* type = (*list)[l].as_string();
      if (!type) fields.invalid("layer_types", "must hold names only");
      if (*type == "full_attention") continue;
      if (*type != "sliding_attention") fields.unsupported("layer_types", "'" + *type + "' is not implemented");
      if (window == 0) fields.invalid("layer_types", "names sliding_attention, but there is no sliding window in use");
      listed[l] = window;
    }
    const bool family_follows = config.family == ModelFamily::Qwen2 || config.family == ModelFamily::Qwen3;
    if (!family_follows && listed != windows) {
      fields.unsupported("layer_types", "differs from what sliding_window says, and this family does not follow it");
    }
    windows = std::move(listed);
  }
  config.windows = std::move(windows);
}

RopeType read_rope_type(ConfigFields& fields) {
  const std::string old_name = fields.text("type", ""), name = fields.text("rope_type", old_name);
  if (!old_name.empty() && name != old_name) {
    fields.invalid("rope_type", "'" + name + "' contradicts type '" + old_name + "'");
  }
  if (name.empty() || name == "default") return RopeType::Default;
  if (name == "linear") return RopeType::Linear;
  if (name == "dynamic") return RopeType::Dynamic;
  if (name == "llama3") return RopeType::Llama3;
  if (name == "yarn") return RopeType::Yarn;
  fields.unsupported("rope_type", "'" + name + "' is not implemented; default, linear, dynamic, llama3 and yarn are");
}

/// Reads the object that transformers 4 calls rope_scaling and transformers 5 rope_parameters.
RopeConfig read_rope_object(const json::Value& object, const ConfigFields& parent, const char* name,
                            std::optional<double> theta, std::int64_t max_position_embeddings) {
  constexpr double tiny = 1e-6, huge = 1e6;
  ConfigFields fields(object, parent.source(), std::string(name) + ".");
  RopeConfig rope;
  rope.type = read_rope_type(fields);
  rope.theta = fields.number("rope_theta", 1.0, 1e15, theta.value_or(10000.0));
  if (theta && rope.theta != *theta) fields.invalid("rope_theta", "contradicts rope_theta outside");
  fields.expect("partial_rotary_factor", 1.0, "rotating part of a head is not implemented");

  if (rope.type != RopeType::Default) rope.factor = fields.number("factor", 1.0, huge);
  if (rope.type == RopeType::Llama3 || rope.type == RopeType::Yarn) {
    rope.original_max_position_embeddings =
        fields.integer("original_max_position_embeddings", 1, max_positions, max_position_embeddings);
  }
  if (rope.type == RopeType::Dynamic) fields.find("original_max_position_embeddings");  // transformers ignores it, too
  if (rope.type == RopeType::Llama3) {
    rope.low_freq_factor = fields.number("low_freq_factor", tiny, huge);
    rope.high_freq_factor = fields.number("high_freq_factor", tiny, huge);
    if (rope.high_freq_factor <= rope.low_freq_factor)
      fields.invalid("high_freq_factor", "must exceed low_freq_factor");
  }
  if (rope.type == RopeType::Yarn) {
    const auto optional = [&](const char* key, double low) -> std::optional<double> {
      if (!fields.find(key)) return std::nullopt;
      return fields.number(key, low, huge);
    };
    rope.attention_factor = optional("attention_factor", tiny);
    rope.mscale = optional("mscale", 0.0);
    rope.mscale_all_dim = optional("mscale_all_dim", 0.0);
    rope.beta_fast = fields.number("beta_fast", tiny, huge, 32.0);
    rope.beta_slow = fields.number("beta_slow", tiny, huge, 1.0);
    if (rope.beta_fast < rope.beta_slow) fields.invalid("beta_fast", "must not be less than beta_slow");
    rope.truncate = fields.boolean("truncate", true);
    if (rope.theta == 1.0) fields.invalid("rope_theta", "must exceed 1 for yarn");
  }
  fields.refuse_unknown();
  return rope;
}

void read_rope(ConfigFields& fields, ModelConfig& config) {
  std::optional<double> theta;
  if (fields.find("rope_theta")) theta = fields.number("rope_theta", 1.0, 1e15);
  if (theta) config.rope.theta = *theta;
  fields.expect("partial_rotary_factor", 1.0, "rotating part of a head is not implemented");

  const json::Value* scaling = fields.find("rope_scaling");
  const json::Value* parameters = fields.find("rope_parameters");
  const auto read = [&](const json::Value& object, const char* name) {
    return read_rope_object(object, fields, name, theta, config.max_position_embeddings);
  };
  if (parameters) config.rope = read(*parameters, "rope_parameters");
  if (scaling) {
    if (!theta && parameters) theta = config.rope.theta;  // rope_scaling need not repeat it
    const RopeConfig scaled = read(*scaling, "rope_scaling");
    if (parameters && scaled != config.rope) fields.invalid("rope_scaling", "contradicts rope_parameters");
    config.rope = scaled;
  }
  if (config.rope.type == RopeType::Dynamic && config.head_dim == 2) {
    fields.invalid("head_dim", "must exceed 2 for dynamic RoPE");
  }
}

std::int64_t read_token_id(const ConfigFields& fields, const char* key, const json::Value& value, std::int64_t V) {
  const json::Number* number = value.as_number();
  if (!number || !number->integer || *number->integer < 0 || *number->integer >= V) {
    fields.invalid(key, "must name tokens from 0 to vocab_size - 1 = " + std::to_string(V - 1));
  }
  return *number->integer;
}

void read_tokens(ConfigFields& fields, const FamilyDefaults& defaults, ModelConfig& config) {
  const std::int64_t V = config.vocab_size;
  if (const json::Value* bos = fields.find("bos_token_id"))
    config.bos_token_id = read_token_id(fields, "bos_token_id", *bos, V);
  else if (!fields.has("bos_token_id") && defaults.bos_token_id < V) config.bos_token_id = defaults.bos_token_id;

  if (const json::Value* eos = fields.find("eos_token_id")) {
    if (const json::Array* list = eos->as_array()) {
      for (const json::Value& id : *list) config.eos_token_ids.push_back(read_token_id(fields, "eos_token_id", id, V));
    } else {
      config.eos_token_ids = {read_token_id(fields, "eos_token_id", *eos, V)};
    }
  } else if (!fields.has("eos_token_id") && defaults.eos_token_id && *defaults.eos_token_id < V) {
    config.eos_token_ids = {*defaults.eos_token_id};
  }

  // Nothing is ever padded here, and checkpoints are about that write -1 for "none".
  if (const json::Value* pad = fields.find("pad_token_id")) {
    const json::Number* number = pad->as_number();
    if (!number || !number->integer) fields.invalid("pad_token_id", "must be an integer");
    if (*number->integer >= 0) config.pad_token_id = *number->integer;
  }
}

DType read_dtype(ConfigFields& fields) {
  const std::string old_spelling = fields.text("torch_dtype", ""), name = fields.text("dtype", old_spelling);
  if (!old_spelling.empty() && name != old_spelling) {
    fields.invalid("dtype", "'" + name + "' contradicts torch_dtype '" + old_spelling + "'");
  }
  if (name.empty()) return DType::Float32;
  for (const DType dtype : {DType::Float32, DType::BFloat16, DType::Float16}) {
    if (name == name_of(dtype)) return dtype;
  }
  fields.unsupported(fields.has("dtype") ? "dtype" : "torch_dtype",
                     "'" + name + "' is not implemented; float32, bfloat16 and float16 are");
}

}  // namespace

ModelConfig parse_config(std::string_view text, const std::string& source) {
  const json::Value root = json::parse(text, source, ErrorCode::InvalidConfig);
  if (!root.as_object()) fail(ErrorCode::InvalidConfig, source, ": a config must be an object, not ", root.kind());
  ConfigFields fields(root, source);
  const FamilyDefaults& defaults = read_family(fields);

  ModelConfig config;
  config.family = defaults.family;
  read_sizes(fields, defaults, config);
  read_biases(fields, config);
  read_windows(fields, config);
  read_rope(fields, config);
  read_tokens(fields, defaults, config);
  config.dtype = read_dtype(fields);
  config.rms_norm_eps = fields.number("rms_norm_eps", 1e-20, 1.0, 1e-6);
  config.initializer_range = fields.number("initializer_range", 0.0, 1.0, 0.02);
  config.tie_word_embeddings = fields.boolean("tie_word_embeddings", false);

  const std::string activation = fields.text("hidden_act", "silu");
  if (activation != "silu" && activation != "swish") {
    fields.unsupported("hidden_act", "'" + activation + "' is not implemented; silu is");
  }
  const char* decoder_only = "only plain decoders are implemented";
  fields.expect("is_encoder_decoder", false, decoder_only);
  fields.expect("add_cross_attention", false, decoder_only);
  fields.expect("tie_encoder_decoder", false, decoder_only);
  fields.expect("pruned_heads", json::Object{}, "pruned heads are not implemented");
  fields.expect("rope_interleaved", false, "RoPE over interleaved pairs is not implemented");
  fields.expect("use_mrope", false, "multimodal RoPE is not implemented");
  fields.ignore(harmless);
  fields.refuse_unknown();
  return config;
}

}  // namespace foretoken
