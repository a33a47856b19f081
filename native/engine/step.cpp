#include <cmath>

#include "core/error.h"
#include "engine/state.h"

namespace foretoken {

namespace {

/// Σ x² of each tensor, all of them fetched at once: one wait for the device.
std::vector<double> squared_norms(Backend& backend, const ParameterStore& tensors) {
  std::vector<double> squares(tensors.count());
  const std::size_t bytes = squares.size() * sizeof(double);
  const Buffer sums(backend, bytes);
  for (std::size_t i = 0; i < squares.size(); ++i)
    backend.sum_squares(tensors[i], static_cast<double*>(sums.data()) + i);
  backend.download(squares.data(), sums.data(), bytes);
  return squares;
}

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

  double sum = 0;
  const std::vector<double> squares = squared_norms(backend, state.gradients);
  for (std::size_t i = 0; i < squares.size(); ++i) {
    if (!std::isfinite(squares[i]))
      fail(ErrorCode::NonFinite, "update ", state.updates + 1, ": the gradient of ", state.parameters.specs[i].name,
           " is not finite. No weight was changed; zeroGradients() drops the gradients");
    sum += squares[i];
  }
  StepResult result;
  result.grad_norm = std::sqrt(sum);

  state.make_moments();
  AdamW update;
  update.learning_rate = options.learning_rate;
  update.beta1 = options.beta1;
  update.beta2 = options.beta2;
  update.epsilon = options.epsilon;
  update.step = state.updates + 1;
  // As torch.nn.utils.clip_grad_norm_ has it, with the same 1e-6.
  if (options.max_grad_norm > 0)
    update.gradient_scale = std::min(1.0, options.max_grad_norm / (result.grad_norm + 1e-6));
  for (std::size_t i = 0; i < state.gradients.count(); ++i) {
    update.weight_decay = options.decay_all || state.parameters.specs[i].decays() ? options.weight_decay : 0;
    update.rounding_seed = static_cast<std::uint64_t>(update.step);
    update.rounding_stream = static_cast<std::uint32_t>(i);
    backend.adamw(state.current.masters[i], state.m[i], state.v[i], state.gradients[i], update);
  }
  state.updates += 1;
  state.current.stale = true;
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
