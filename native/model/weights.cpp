#include "model/weights.h"

#include <unordered_map>

#include "core/error.h"

namespace foretoken {

namespace {

/// Matrices and vectors that a fused product reads as one must not be padded apart; everything else begins on a cache line.
bool continues_previous(const ParameterSpec& spec) {
  for (const char* part : {"k_proj.", "v_proj.", "up_proj."})
    if (spec.name.find(part) != std::string::npos) return true;
  return false;
}

std::vector<View> lay_out(const std::vector<ParameterSpec>& specs, DType matrices, DType vectors, void* base,
                          std::size_t* total) {
  std::vector<View> views;
  std::size_t used = 0;
  for (const ParameterSpec& spec : specs) {
    if (!continues_previous(spec)) used = (used + 63) / 64 * 64;
    const DType dtype = spec.shape.size() == 2 ? matrices : vectors;
    views.emplace_back(base ? static_cast<std::byte*>(base) + used : nullptr, dtype, spec.rows(), spec.cols());
    used += static_cast<std::size_t>(spec.elements()) * size_of(dtype);
  }
  *total = used;
  return views;
}

}  // namespace

std::size_t ParameterStore::bytes_for(const std::vector<ParameterSpec>& specs, DType matrices, DType vectors) {
  std::size_t total = 0;
  lay_out(specs, matrices, vectors, nullptr, &total);
  return total;
}

ParameterStore::ParameterStore(Backend& backend, const std::vector<ParameterSpec>& specs, DType matrices, DType vectors)
    : buffer_(backend, bytes_for(specs, matrices, vectors)) {
  std::size_t total = 0;
  views_ = lay_out(specs, matrices, vectors, buffer_.data(), &total);
}

View ParameterStore::fused(std::size_t index, std::size_t count) const {
  View view = views_[index];
  // Vectors (biases) join along their columns, matrices along their rows.
  const bool vectors = view.rows == 1;
  for (std::size_t i = index + 1; i < index + count; ++i) {
    const View& next = views_[i];
    invariant(next.data == static_cast<std::byte*>(view.data) + static_cast<std::size_t>(view.elements()) * size_of(view.dtype),
              "fused parameters lie behind one another");
    if (vectors) view.cols += next.cols; else view.rows += next.rows;
  }
  view.stride = view.cols;
  return view;
}

void ParameterStore::fill_zero(Backend& backend) const {
  for (const View& view : views_) backend.fill_zero(view);
}

ModelParameters::ModelParameters(const ModelConfig& config) : specs(parameter_specs(config)), blocks(config.num_layers) {
  std::unordered_map<std::string, int> index;
  for (std::size_t i = 0; i < specs.size(); ++i) index[specs[i].name] = static_cast<int>(i);
  const auto at = [&](const std::string& name) {
    const auto found = index.find(name);
    return found == index.end() ? -1 : found->second;
  };
  for (std::int64_t layer = 0; layer < config.num_layers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    BlockParameters& block = blocks[layer];
    block.input_norm = at(prefix + "input_layernorm.weight");
    block.q_weight = at(prefix + "self_attn.q_proj.weight");
    block.q_bias = at(prefix + "self_attn.q_proj.bias");
    block.q_norm = at(prefix + "self_attn.q_norm.weight");
    block.k_norm = at(prefix + "self_attn.k_norm.weight");
    block.o_weight = at(prefix + "self_attn.o_proj.weight");
    block.o_bias = at(prefix + "self_attn.o_proj.bias");
    block.post_norm = at(prefix + "post_attention_layernorm.weight");
    block.gate_weight = at(prefix + "mlp.gate_proj.weight");
    block.gate_bias = at(prefix + "mlp.gate_proj.bias");
    block.down_weight = at(prefix + "mlp.down_proj.weight");
    block.down_bias = at(prefix + "mlp.down_proj.bias");
  }
  embedding = at("model.embed_tokens.weight");
  final_norm = at("model.norm.weight");
  head = at("lm_head.weight");
  if (head < 0) head = embedding;
}

int ModelParameters::find(const std::string& name) const {
  for (std::size_t i = 0; i < specs.size(); ++i)
    if (specs[i].name == name) return static_cast<int>(i);
  fail(ErrorCode::InvalidArgument, "the model has no parameter named \"", name, "\"; parameters() lists them");
}

Weights::Weights(Backend& backend, const ModelConfig& config, const ModelParameters& parameters,
                 const ParameterStore& masters, bool trainable)
    : backend_(backend), config_(config), parameters_(parameters), masters_(masters), trainable_(trainable) {
  const auto vector = [&](int index, std::size_t count = 1) { return index < 0 ? View{} : masters.fused(index, count); };
  const std::int64_t C = config.hidden_size, F = config.intermediate_size;
  for (const BlockParameters& p : parameters.blocks) {
    Block block;
    block.input_norm = vector(p.input_norm);
    block.qkv_bias = vector(p.q_bias, 3);
    block.q_norm = vector(p.q_norm);
    block.k_norm = vector(p.k_norm);
    block.o_bias = vector(p.o_bias);
    block.post_norm = vector(p.post_norm);
    block.gate_up_bias = vector(p.gate_bias, 2);
    block.down_bias = vector(p.down_bias);
    block.qkv = backend.make_weight(config.qkv_width(), C, trainable);
    block.o = backend.make_weight(C, config.query_width(), trainable);
    block.gate_up = backend.make_weight(2 * F, C, trainable);
    block.down = backend.make_weight(C, F, trainable);
    blocks.push_back(std::move(block));
  }
  embedding = masters[parameters.embedding];
  final_norm = masters[parameters.final_norm];
  head = backend.make_weight(config.vocab_size, C, trainable);
  refresh();
}

std::size_t Weights::bytes_for(const Backend& backend, const ModelConfig& config, bool trainable) {
  const std::int64_t C = config.hidden_size, F = config.intermediate_size;
  const std::size_t block = backend.weight_bytes(config.qkv_width(), C, trainable) +
                            backend.weight_bytes(C, config.query_width(), trainable) +
                            backend.weight_bytes(2 * F, C, trainable) + backend.weight_bytes(C, F, trainable);
  return block * static_cast<std::size_t>(config.num_layers) + backend.weight_bytes(config.vocab_size, C, trainable);
}

void Weights::refresh() {
  for (std::size_t layer = 0; layer < blocks.size(); ++layer) {
    const BlockParameters& p = parameters_.blocks[layer];
    backend_.pack_weight(*blocks[layer].qkv, masters_.fused(p.q_weight, 3));
    backend_.pack_weight(*blocks[layer].o, masters_[p.o_weight]);
    backend_.pack_weight(*blocks[layer].gate_up, masters_.fused(p.gate_weight, 2));
    backend_.pack_weight(*blocks[layer].down, masters_[p.down_weight]);
  }
  backend_.pack_weight(*head, masters_[parameters_.head]);
}

}  // namespace foretoken
