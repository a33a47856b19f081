#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/memory.h"
#include "model/decoder.h"
#include "model/device_batch.h"
#include "model/head.h"
#include "model/kept_activations.h"
#include "model/weights.h"
#include "rollout/cached_forward.h"

namespace foretoken {

/// A copy of the masters with its packed products: the current weights, the reference, the average.
struct WeightSet {
  ParameterStore masters;
  std::unique_ptr<Weights> packed;
  bool stale = false;  // masters changed since packing
};

/// Everything an engine owns. The members are destroyed in reverse order: the backend last.
struct Engine::State {
  State(ModelConfig config, const EngineOptions& options);

  EngineOptions options;
  ModelConfig config;
  std::string config_json;              // as opened, to be carried along on save
  std::string directory;                // where tokenizer files come from; empty for a new model
  std::unique_ptr<Backend> backend;
  MemoryBudget budget;
  ModelParameters parameters;
  std::unique_ptr<Decoder> decoder;
  Head head;
  WeightSet current;
  std::optional<WeightSet> reference, average;
  ParameterStore gradients, m, v;       // made when first needed
  bool gradients_empty = true;
  std::int64_t updates = 0;             // optimizer steps so far
  WorkMemory work;
  UploadedBatch uploaded;
  KeptActivations kept;                 // by the last sample(), while the weights stay
  std::vector<std::uint8_t> token_bytes;
  std::vector<std::int64_t> token_offsets;  // (V + 1) or empty

  DType matrix_dtype() const;           // of masters, reference and average
  DType vector_dtype() const { return backend->accumulation_dtype(); }

  /// Makes the masters of the current weights, not filled.
  void make_masters();
  /// A copy whose matrices are held in `matrices`.
  WeightSet copy_of_current(const char* purpose, DType matrices);
  /// The masters of the current weights have been written to.
  void weights_changed();
  /// What of `wanted` is kept when `others` bytes are for other purposes: half of what is left is used, since something else
  /// may need memory later.
  KeptActivations::Extent keepable(const KeptActivations::Extent& wanted, std::size_t others) const;
  /// Gives back the memory of what sampling has kept.
  void release_kept();
  /// The packed weights of a kind, fresh; throws InvalidArgument when there is no such copy.
  const Weights& weights(WeightsKind kind);
  /// The current weights with what the backward pass needs.
  const Weights& trainable_weights();
  void make_gradients();
  void make_moments();

  /// Of a RoPE table that is made for paths of `longest` positions.
  std::int64_t rope_table_positions(std::int64_t longest) const;
  std::size_t rope_table_bytes(std::int64_t longest) const;
  /// A decoder whose RoPE table covers `positions`, and a check of the forest against vocabulary and context length.
  Decoder& decoder_for(const TokenForest& forest, std::int64_t extra_positions = 0);
};

/// Bytes of work memory that a training pass over `rows` packed tokens takes, all of them predicted; `kept`: their
/// activations are, all of them.
std::size_t training_bytes(const Engine::State& state, std::int64_t rows, bool kept);

/// Rows of the passes that sampling makes.
CachedForwardRows sampling_rows(const Engine::State& state, std::int64_t contexts, std::int64_t rollouts,
                                std::int64_t max_sequences, std::int64_t longest_path);

/// Bytes of work memory that sampling as described takes when the store may hold all of it.
std::size_t sampling_bytes(const Engine::State& state, const MemoryPlanOptions& options);

/// The values of a contiguous view, widened.
std::vector<double> download_values(Backend& backend, View view);
std::vector<float> download_floats(Backend& backend, View view);
/// Rounds values into a contiguous view.
void upload_values(Backend& backend, std::span<const double> values, View view);
void upload_floats(Backend& backend, std::span<const float> values, View view);

}  // namespace foretoken
