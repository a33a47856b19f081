#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend/arena.h"
#include "backend/backend.h"
#include "model/parameters.h"

namespace foretoken {

/// One tensor for every parameter, in one block of memory: masters, gradients or a moment.
class ParameterStore {
 public:
  ParameterStore() = default;
  /// Matrices are held in `matrices`, norms and biases in `vectors`. Not cleared.
  ParameterStore(Backend& backend, const std::vector<ParameterSpec>& specs, DType matrices, DType vectors);

  static std::size_t bytes_for(const std::vector<ParameterSpec>& specs, DType matrices, DType vectors);

  explicit operator bool() const { return static_cast<bool>(buffer_); }
  std::size_t count() const { return views_.size(); }
  std::size_t bytes() const { return buffer_.bytes(); }
  View operator[](std::size_t index) const { return views_[index]; }
  /// Parameters `index` … `index + count` as one matrix: they share their columns and lie behind one another.
  View fused(std::size_t index, std::size_t count) const;
  void fill_zero(Backend& backend) const;

 private:
  Buffer buffer_;
  std::vector<View> views_;
};

/// Which parameters a decoder block consists of, as indices into the list of specs; -1 where the model has none.
struct BlockParameters {
  int input_norm = -1, q_weight = -1, q_bias = -1, q_norm = -1, k_norm = -1, o_weight = -1, o_bias = -1;
  int post_norm = -1, gate_weight = -1, gate_bias = -1, down_weight = -1, down_bias = -1;
};

struct ModelParameters {
  std::vector<ParameterSpec> specs;
  std::vector<BlockParameters> blocks;  // (L)
  int embedding = 0, final_norm = -1, head = -1;  // head is the embedding when tied

  explicit ModelParameters(const ModelConfig& config);
  /// Index of a parameter by name; throws InvalidArgument naming it.
  int find(const std::string& name) const;
};

/// The same parameters as products read them: matrices packed by the backend, norms and biases as they are.
class Weights {
 public:
  struct Block {
    View input_norm, qkv_bias, q_norm, k_norm, o_bias, post_norm, gate_up_bias, down_bias;  // (1, ·) A, empty if absent
    std::unique_ptr<Weight> qkv, o, gate_up, down;
  };

  /// `trainable` also packs what gradients of inputs need. Masters stay with the caller and must outlive this.
  Weights(Backend& backend, const ModelConfig& config, const ModelParameters& parameters, const ParameterStore& masters,
          bool trainable);
  static std::size_t bytes_for(const Backend& backend, const ModelConfig& config, bool trainable);

  /// Packs the matrices again after the masters changed.
  void refresh();

  View embedding;                    // (V, C) master
  View final_norm;                   // (1, C) A
  std::unique_ptr<Weight> head;      // (V, C)
  std::vector<Block> blocks;         // (L)
  bool trainable() const { return trainable_; }

 private:
  Backend& backend_;
  const ModelConfig& config_;
  const ModelParameters& parameters_;
  const ParameterStore& masters_;
  bool trainable_;
};

}  // namespace foretoken
