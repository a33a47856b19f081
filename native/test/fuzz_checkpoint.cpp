// Damages small valid model directories in every way it can think of and opens them: each must open, or be refused
// with an Error. Anything else (a crash, another exception, an Internal error, a hang, memory without bounds) fails.
//
//   fuzz_checkpoint [cases = 12000] [seed = 1] [first case = 0]
//
// A case depends on seed and number only, so a failure is repeated with `fuzz_checkpoint 1 <seed> <case>`.

#include <sys/resource.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <map>

#include "core/json.h"
#include "core/philox.h"
#include "model/checkpoint.h"
#include "model/rope.h"
#include "test/files.h"

using namespace foretoken;
using namespace foretoken::test;
namespace fs = std::filesystem;

namespace {

constexpr long max_memory_kb = 1 << 20;  // AddressSanitizer alone keeps 256 MB of freed memory back
constexpr unsigned max_seconds = 600;

/// Random choices of one case.
class Dice {
 public:
  Dice(std::uint64_t seed, std::uint32_t stream) : seed_(seed), stream_(stream) {}
  std::size_t below(std::size_t bound) {
    const auto words = random_words(seed_, RandomUse::Sampling, stream_, count_++);
    return static_cast<std::size_t>((std::uint64_t{words[0]} << 32 | words[1]) % bound);
  }
  bool one_in(std::size_t n) { return below(n) == 0; }
  template <typename List>
  auto pick(const List& list) {
    return list[below(std::size(list))];
  }

 private:
  std::uint64_t seed_;
  std::uint32_t stream_;
  std::uint64_t count_ = 0;
};

json::Value nested(int depth) {
  json::Value value = json::Array{};
  for (int i = 0; i < depth; ++i) value = json::Array{value};
  return value;
}

json::Value odd_value(Dice& dice) {
  constexpr std::int64_t integers[] = {0, 1, 2, 3, 4, 7, 8, 16, -1, -8, 255, 1 << 16, 1 << 24,
                                       std::numeric_limits<std::int32_t>::max(), std::int64_t{1} << 32,
                                       std::int64_t{1} << 53, std::int64_t{1} << 62,
                                       std::numeric_limits<std::int64_t>::max(),
                                       std::numeric_limits<std::int64_t>::min()};
  constexpr double doubles[] = {0.0, -0.0, 0.5, 1.0, 1e-320, 1e-9, 1e9, 1e308, -1e308, 4.0, 1e15};
  const char* strings[] = {"", "F32", "BF16", "F16", "F64", "U8", "F4", "POSIT", "bfloat16", "float64", "llama", "qwen2",
                           "qwen3", "mistral", "linear", "dynamic", "llama3", "yarn", "longrope", "default",
                           "full_attention", "sliding_attention", "../x.safetensors", "/etc/passwd",
                           "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"};
  switch (dice.below(12)) {
    case 0: return nullptr;
    case 1: return dice.one_in(2);
    case 2:
    case 3:
    case 4: return dice.pick(integers);
    case 5: return dice.pick(doubles);
    case 6:
    case 7: return dice.pick(strings);
    case 8: return std::string(dice.below(20000), 'x');
    case 9: return json::Array{dice.pick(integers), dice.pick(integers)};
    case 10: return nested(static_cast<int>(dice.below(100)));
    default: return json::Object{};
  }
}

json::Value odd_neighbour(const json::Number& number, Dice& dice) {
  if (!number.integer) return dice.one_in(2) ? -number.value : number.value / 1e6;
  const auto n = static_cast<std::uint64_t>(*number.integer);
  const std::uint64_t neighbours[] = {n + 1, n - 1, n * 2, n / 2, 0 - n, n << 32, n + 4, n - 4, n + 8};
  return static_cast<std::int64_t>(dice.pick(neighbours));
}

json::Value mutate(const json::Value& value, Dice& dice) {
  if (const json::Object* object = value.as_object(); object && !object->empty() && !dice.one_in(20)) {
    json::Object changed = *object;
    const std::size_t at = dice.below(changed.size());
    switch (dice.below(10)) {
      case 0: changed.erase(changed.begin() + static_cast<std::ptrdiff_t>(at)); break;
      case 1: changed.push_back(json::Member(changed[at])); break;
      case 2: changed[at].key = changed[dice.below(changed.size())].key; break;
      case 3: changed.push_back({dice.one_in(2) ? "num_experts" : "__metadata__", odd_value(dice)}); break;
      case 4: std::swap(changed[at].value, changed[dice.below(changed.size())].value); break;
      default: changed[at].value = mutate(changed[at].value, dice);
    }
    return changed;
  }
  if (const json::Array* array = value.as_array(); array && !array->empty() && !dice.one_in(10)) {
    json::Array changed = *array;
    const std::size_t at = dice.below(changed.size());
    switch (dice.below(6)) {
      case 0: changed.erase(changed.begin() + static_cast<std::ptrdiff_t>(at)); break;
      case 1: changed.push_back(json::Value(changed[at])); break;
      case 2: std::swap(changed[at], changed[dice.below(changed.size())]); break;
      default: changed[at] = mutate(changed[at], dice);
    }
    return changed;
  }
  if (const json::Number* number = value.as_number(); number && dice.one_in(2)) return odd_neighbour(*number, dice);
  return odd_value(dice);
}

void mutate_bytes(std::string& bytes, Dice& dice) {
  const char* tokens[] = {"NaN", "-Infinity", "1e999", "\\ud800", "\"",   "{",  "}", "[", "]",
                          ",",   ":",         "null",  "\x80",    "\xff", "00", "-", "\n"};
  for (std::size_t edits = 1 + dice.below(3); edits > 0 && !bytes.empty(); --edits) {
    const std::size_t at = dice.below(bytes.size()), length = std::min(bytes.size() - at, 1 + dice.below(40));
    switch (dice.below(7)) {
      case 0: bytes[at] = static_cast<char>(bytes[at] ^ (1 << dice.below(8))); break;
      case 1: bytes[at] = static_cast<char>(dice.below(256)); break;
      case 2: bytes.resize(at); break;
      case 3: bytes.erase(at, length); break;
      case 4: bytes.insert(at, bytes.substr(at, length)); break;
      case 5: bytes.insert(at, dice.pick(tokens)); break;
      default: bytes.insert(at, std::string(1 + dice.below(100), dice.one_in(2) ? '[' : '{')); break;
    }
  }
}

std::string mutate_json(const std::string& text, Dice& dice) {
  std::string changed = text;
  if (!dice.one_in(4)) {
    json::Value value = json::parse(text, "seed", ErrorCode::Internal);
    for (std::size_t edits = 1 + dice.below(2); edits > 0; --edits) value = mutate(value, dice);
    changed = json::write(value, false);
  }
  if (dice.one_in(3)) mutate_bytes(changed, dice);
  return changed;
}

std::string mutate_safetensors(const std::string& bytes, Dice& dice) {
  std::uint64_t header_bytes = 0;
  for (std::size_t i = 8; i-- > 0;) header_bytes = header_bytes << 8 | static_cast<unsigned char>(bytes[i]);
  const std::string header = bytes.substr(8, header_bytes), data = bytes.substr(8 + header_bytes);
  constexpr std::uint64_t lengths[] = {
      0, 1, 7, 8, 1 << 20, 100'000'000, 100'000'001, std::uint64_t{1} << 40, ~std::uint64_t{0}, ~std::uint64_t{0} - 7};
  std::string changed = bytes;
  switch (dice.below(8)) {
    case 0: changed.resize(dice.below(bytes.size())); break;
    case 1: changed = bytes + std::string(1 + dice.below(64), '\0'); break;
    case 2: {
      const std::uint64_t length = dice.one_in(2) ? dice.pick(lengths) : header_bytes + dice.below(64) - 32;
      for (std::size_t i = 0; i < 8; ++i) changed[i] = static_cast<char>(length >> (8 * i) & 0xFF);
      break;
    }
    case 3: mutate_bytes(changed, dice); break;
    case 4: {  // numbers that are no numbers, in the data
      const std::size_t at = 8 + header_bytes + dice.below(data.size() / 4) * 4;
      changed.replace(at, 4, dice.one_in(2) ? std::string("\0\0\x80\x7f", 4) : std::string("\xff\xff\xff\xff", 4));
      break;
    }
    default: changed = safetensors_bytes(mutate_json(header, dice), data);
  }
  return changed;
}

/// A valid directory and the bytes of its files.
struct Model {
  fs::path directory;
  std::map<std::string, std::string> files;
};

Model make_model(const fs::path& directory, const std::string& config_json, std::int64_t max_shard_bytes) {
  const ModelConfig config = parse_config(config_json, "seed");
  save_checkpoint(directory, config, {.max_shard_bytes = max_shard_bytes, .config_json = config_json},
                  [](const ParameterSpec& spec, std::int64_t, std::int64_t count, float* out) {
                    for (std::int64_t i = 0; i < count * spec.cols(); ++i) out[i] = 0.25f * static_cast<float>(i % 7);
                  });
  Model model{directory, {}};
  for (const auto& entry : fs::directory_iterator(directory))
    model.files[entry.path().filename().string()] = read_file(entry.path());
  return model;
}

std::vector<Model> make_models(const TemporaryDirectory& scratch) {
  const std::string sizes =
      R"("torch_dtype":"float32","vocab_size":16,"hidden_size":8,"intermediate_size":12,"num_hidden_layers":2,)"
      R"("num_attention_heads":2,"num_key_value_heads":1,)";
  std::vector<Model> models;
  models.push_back(make_model(
      scratch / "llama",
      "{" + sizes +
          R"("model_type":"llama","architectures":["LlamaForCausalLM"],)"
          R"("attention_bias":true,"mlp_bias":true,"rope_theta":500000.0,"eos_token_id":[1,2],"rope_scaling":{"rope_type":"llama3",)"
          R"("factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":32}})",
      1 << 30));
  models.push_back(make_model(scratch / "mistral",
                              "{" + sizes +
                                  R"("model_type":"mistral","sliding_window":4,)"
                                  R"("rope_scaling":{"type":"dynamic","factor":2.0}})",
                              1000));
  models.push_back(make_model(
      scratch / "qwen2",
      "{" + sizes +
          R"("model_type":"qwen2","use_sliding_window":true,"sliding_window":4,)"
          R"("max_window_layers":1,"tie_word_embeddings":true,"rope_parameters":{"rope_type":"yarn","factor":4.0,"rope_theta":10000.0,)"
          R"("beta_fast":8.0,"mscale":1.0,"mscale_all_dim":0.5,"original_max_position_embeddings":32,"truncate":false}})",
      1 << 30));
  models.push_back(
      make_model(scratch / "qwen3",
                 "{" + sizes +
                     R"("model_type":"qwen3","head_dim":6,"layer_types":)"
                     R"(["full_attention","full_attention"],"rope_parameters":{"rope_type":"linear","factor":2.0}})",
                 1500));
  return models;
}

/// Opens a directory and reads all of it; what it accepts must also survive its own writing.
void open_all(const fs::path& directory) {
  const Checkpoint checkpoint = Checkpoint::open(directory);
  invariant(parse_config(to_config_json(checkpoint.config()), "written") == checkpoint.config(),
            "a config changed when written");
  const RopeFrequencies frequencies = rope_frequencies(checkpoint.config(), 64);
  std::vector<float> table(static_cast<std::size_t>(4 * checkpoint.config().head_dim));
  fill_rope_table(frequencies, 4, table.data());
  for (const float entry : table) invariant(std::isfinite(entry), "a RoPE table is not finite");
  std::vector<float> values;
  for (std::size_t p = 0; p < checkpoint.parameters().size(); ++p) {
    values.resize(static_cast<std::size_t>(checkpoint.parameters()[p].elements()));
    checkpoint.read(p, values.data());
  }
}

/// One case: damage, open, repair. Returns what came of it.
std::string run_case(const Model& model, Dice& dice) {
  auto file = model.files.begin();
  std::advance(file, static_cast<std::ptrdiff_t>(dice.below(model.files.size())));
  const std::string& name = file->first;
  const std::string damaged =
      name.ends_with(".json") ? mutate_json(file->second, dice) : mutate_safetensors(file->second, dice);
  write_file(model.directory / name, damaged);
  std::string outcome = "opened";
  try {
    open_all(model.directory);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::Internal) throw;
    outcome = error_code_name(error.code());
  }
  write_file(model.directory / name, file->second);
  return outcome + (name == "config.json" ? " (config)" : name.ends_with(".json") ? " (index)" : " (tensors)");
}

std::uint64_t argument(int count, char** arguments, int index, std::uint64_t fallback) {
  return count > index ? std::strtoull(arguments[index], nullptr, 10) : fallback;
}

}  // namespace

int main(int count, char** arguments) {
  const std::uint64_t cases = argument(count, arguments, 1, 12000), seed = argument(count, arguments, 2, 1);
  const std::uint64_t first = argument(count, arguments, 3, 0);
  ::alarm(max_seconds);  // a hang ends the program
  const TemporaryDirectory scratch;
  const std::vector<Model> models = make_models(scratch);
  std::map<std::string, std::uint64_t> outcomes;
  for (std::uint64_t i = first; i < first + cases; ++i) {
    Dice dice(seed, static_cast<std::uint32_t>(i));
    const Model& model = models[i % models.size()];
    try {
      ++outcomes[run_case(model, dice)];
    } catch (const std::exception& error) {
      std::printf("FAILED  fuzz_checkpoint 1 %llu %llu: %s\n", static_cast<unsigned long long>(seed),
                  static_cast<unsigned long long>(i), error.what());
      return 1;
    }
  }
  for (const Model& model : models)
    open_all(model.directory);  // what was repaired is whole, so damage was what was refused

  struct rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  for (const auto& [outcome, times] : outcomes)
    std::printf("%8llu  %s\n", static_cast<unsigned long long>(times), outcome.c_str());
  std::printf("fuzz_checkpoint: %llu damaged model directories, peak memory %ld MB\n",
              static_cast<unsigned long long>(cases), usage.ru_maxrss / 1024);
  if (usage.ru_maxrss > max_memory_kb) {
    std::printf("FAILED  more than %ld MB of memory\n", max_memory_kb / 1024);
    return 1;
  }
  return 0;
}
