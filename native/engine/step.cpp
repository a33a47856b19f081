#include <cmath>

#include "core/error.h"
#include "engine/state.h"

namespace foretoken {

namespace {

/// What clipping needs to know of the gradients, in device memory: the update does not wait for the host to see it.
class GradientNorms {
 public:
  GradientNorms(Backend& backend, const ParameterStore& gradients, double max_norm)
      : backend_(backend), count_(gradients.count()), memory_(backend, (count_ + 1) * sizeof(double)) {
    for (std::size_t i = 0; i < count_; ++i) backend.sum_squares(gradients[i], values() + i);
    backend.clip_norm(values(), static_cast<std::int64_t>(count_), max_norm, values() + count_);
    backend.start_download(values(), count_ * sizeof(double));
  }

  /// NaN where a gradient is not finite, so that AdamW leaves everything as it was.
  const double* scale() const { return values() + count_; }
  /// Σ x² of each tensor.
  std::vector<double> squares() const {
    std::vector<double> result(count_);
    backend_.download(result.data(), values(), count_ * sizeof(double));
    return result;
  }

 private:
  double* values() const { return static_cast<double*>(memory_.data()); }

  Backend& backend_;
  std::size_t count_;
  Buffer memory_;
};

}  // namespace

StepResult Engine::step(const StepOptions& options) {
  State& state = *state_;
  const auto require = [](bool holds, const char* what) {
    if (!holds) fail(ErrorCode::InvalidArgument, "step: ", what);
  };
  require(std::isfinite(options.learning_rate) && options.learning_rate >= 0, "learningRate must be a number of at least 0");
  require(options.beta1 >= 0 && options.beta1 < 1 && options.beta2 >= 0 && options.beta2 < 1, "betas must lie in [0, 1)");
  require(std::isfinite(options.epsilon) && options.epsilon > 0, "epsilon must be positive");
  require(std::isfinite(options.weight_decay) && options.weight_decay >= 0, "weightDecay must not be negative");
  require(std::isfinite(options.max_grad_norm) && options.max_grad_norm >= 0, "maxGradNorm must not be negative");
  if (!state.gradients || state.gradients_empty)
    fail(ErrorCode::InvalidArgument, "step: there are no gradients; call accumulate() first");
  Backend& backend = *state.backend;

  state.make_moments();
  const GradientNorms norms(backend, state.gradients, options.max_grad_norm);
  AdamW update;
  update.learning_rate = options.learning_rate;
  update.beta1 = options.beta1;
  update.beta2 = options.beta2;
  update.epsilon = options.epsilon;
  update.step = state.updates + 1;
  update.gradient_scale = norms.scale();
  for (std::size_t i = 0; i < state.gradients.count(); ++i) {
    update.weight_decay = options.decay_all || state.parameters.specs[i].decays() ? options.weight_decay : 0;
    update.rounding_seed = static_cast<std::uint64_t>(update.step);
    update.rounding_stream = static_cast<std::uint32_t>(i);
    backend.adamw(state.current.masters[i], state.m[i], state.v[i], state.gradients[i], update);
  }

  double sum = 0;
  const std::vector<double> squares = norms.squares();
  for (std::size_t i = 0; i < squares.size(); ++i) {
    if (!std::isfinite(squares[i]))
      fail(ErrorCode::NonFinite, "update ", state.updates + 1, ": the gradient of ", state.parameters.specs[i].name,
           " is not finite. No weight was changed; zeroGradients() drops the gradients");
    sum += squares[i];
  }
  if (!std::isfinite(sum))
    fail(ErrorCode::NonFinite, "update ", state.updates + 1, ": the norm of all gradients is not finite. No weight was changed; "
         "zeroGradients() drops the gradients");
  StepResult result;
  result.grad_norm = std::sqrt(sum);
  state.updates += 1;
  state.weights_changed();
  zero_gradients();
  result.step = state.updates;
  return result;
}

void Engine::zero_gradients() {
  State& state = *state_;
  if (!state.gradients) return;
  state.gradients.fill_zero(*state.backend);
  state.gradients_empty = true;
}

}  // namespace foretoken
