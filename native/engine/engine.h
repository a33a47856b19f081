#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/control.h"
#include "core/dtype.h"
#include "forest/token_forest.h"
#include "model/config.h"
#include "model/weights_kind.h"
#include "objective/loss_terms.h"
#include "rollout/sampling_types.h"

namespace foretoken {

struct EngineOptions {
  std::string device = "auto";        // "auto", "cpu", "reference" (double precision, slow), "cuda", "cuda:1"
  std::string cuda_library;           // libforetoken_cuda.so, tried and found good (lib/engine/cuda-probe.ts), for "cuda"
  DType dtype = DType::Float32;       // activations and products: Float32 or BFloat16
  bool allow_tf32 = false;            // float32 products of a GPU may round their operands to TF32
  bool bfloat16_state = false;        // bfloat16 masters and moments, stochastic rounding: 10 bytes each, not 16
  int threads = 0;                    // 0: affinity and cgroup decide
  std::int64_t batch_tokens = 2048;   // most packed tokens per micro-batch (one longer path is still taken whole)
  std::int64_t cache_tokens = 0;      // capacity of the key/value store in tokens; 0: as the first requests need
  std::size_t memory_limit = 0;       // bytes; 0: what the machine (and cgroup) has
  bool recompute = false;             // drop each block's activations and compute them again in the backward pass
};

/// Standard deviations of a new model's weights; negative: the config's initializer_range.
struct Initialisation {
  std::uint64_t seed = 0;
  double embedding = -1;
  double head = -1;
  double projection = -1;            // q, k, v, gate, up
  double output_projection = -1;     // o, down
  bool scale_by_fan_in = false;      // the two projection values are multiplied by 1 / sqrt(fan in)
};

enum class TensorKind { Weight, Gradient, Reference, Average };

struct ScoreOptions {
  double temperature = 1;
  WeightsKind weights = WeightsKind::Current;
  std::int32_t top_entropy = 0;           // k of the renormalised top-k entropy; 0: not computed
  bool argmax = false;
  std::vector<std::int32_t> logit_tokens; // forest token indices whose next-token logits are wanted in full
};

struct ScoreResult {
  std::vector<float> logprobs;     // (N); NaN for the first token of a root
  std::vector<float> entropy;      // (N) nats, of the distribution that predicts token i; NaN likewise
  std::vector<float> top_entropy;  // (N) or empty
  std::vector<std::int32_t> argmax;  // (N) or empty: most likely token in place of token i, -1 for the first token of a root
  std::vector<float> logits;       // (logit_tokens, V) tempered by nothing
};

struct AccumulateOptions {
  double temperature = 1;
  std::optional<bool> recompute;       // default: the engine's
  std::int64_t batch_tokens = 0;       // 0: the engine's
};

struct AccumulateResult {
  double loss = 0;                     // the sum of the terms' losses
  std::vector<TermStatistics> terms;   // in the order given
  std::int64_t tokens = 0;             // tokens that went through the network
  std::int64_t kept_tokens = 0;        // of these, the ones whose activations sample() had kept: they went through it backward only
  std::int64_t micro_batches = 0;
};

struct StepOptions {
  double learning_rate = 0, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0;
  double max_grad_norm = 0;            // 0: no clipping
  bool decay_all = false;              // also norms and biases
};

struct StepResult {
  double grad_norm = 0;                // before clipping
  std::int64_t step = 0;               // updates so far
};

struct ParameterInfo {
  std::string name;
  std::vector<std::int64_t> shape;
  DType dtype = DType::Float32;        // of the master weights
};

/// The work that a memory plan is made for.
struct MemoryPlanOptions {
  std::int64_t training_tokens = -1;   // packed tokens of the largest micro-batch; negative: batchTokens; 0: no training
  std::int64_t contexts = 0;           // of rollouts; 0: no sampling
  std::int64_t context_tokens = 0;     // with new_tokens also the longest sequence that is trained on; neither: any
  std::int64_t rollouts = 1;           // per context
  std::int64_t new_tokens = 0;         // per rollout, at most
  std::int64_t max_sequences = 0;      // decoded at once; 0: as sample() decides
  bool keep_activations = false;       // of the rollouts, all of which are trained on
};

struct MemoryItem {
  std::string name;                    // "weights", "gradients", …
  std::size_t bytes = 0;
};

/// One model on one device: the four verbs and what surrounds them. One call at a time.
class Engine {
 public:
  static std::unique_ptr<Engine> open(const std::string& directory, const EngineOptions& options);
  /// A new model; `config` is the text of a config.json.
  static std::unique_ptr<Engine> create(const std::string& config, const Initialisation& initialisation,
                                        const EngineOptions& options);
  ~Engine();

  const ModelConfig& config() const;
  std::string device() const;             // "cpu", "reference", "cuda:0"
  std::string device_description() const; // "avx512-bf16, 2 threads"

  ScoreResult score(const TokenForest& forest, const ScoreOptions& options, const Control& control);
  SampleResult sample(const TokenForest& forest, const SampleOptions& options, const Control& control);
  AccumulateResult accumulate(const TokenForest& forest, const std::vector<LossTerm>& terms,
                              const AccumulateOptions& options, const Control& control);
  /// Clips, updates, empties the gradients. A NaN or infinite gradient throws NonFinite naming the tensor; weights stay.
  StepResult step(const StepOptions& options);
  void zero_gradients();

  std::vector<ParameterInfo> parameters() const;
  std::vector<float> read(const std::string& name, TensorKind kind);
  void write(const std::string& name, const std::vector<float>& values);  // current weights

  void keep_reference();                  // freezes a copy of the current weights
  void update_average(double tau);        // average = tau · average + (1 − tau) · current; the first call copies

  /// The bytes of each token, for stop texts: token t is bytes[offsets[t] … offsets[t + 1]).
  void set_token_bytes(std::vector<std::uint8_t> bytes, std::vector<std::int64_t> offsets);

  void save(const std::string& directory, DType dtype, std::size_t max_shard_bytes = 0, const Control& control = {});
  void save_training_state(const std::string& directory);
  void load_training_state(const std::string& directory);

  /// Bytes by purpose that the described work will hold at its peak.
  std::vector<MemoryItem> memory_plan(const MemoryPlanOptions& options = {}) const;
  std::size_t memory_held() const;              // allocated from the backend now

 public:
  struct State;  // engine/state.h: for the files of this folder

 private:
  explicit Engine(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace foretoken
