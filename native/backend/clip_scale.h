#pragma once

namespace foretoken {

/// What `Backend::clip_norm` stores for a norm; NaN where it is not finite. 1e-6 as in torch.nn.utils.clip_grad_norm_.
constexpr double clip_scale(double norm, double max_norm) {
  const double scale = max_norm > 0 ? max_norm / (norm + 1e-6) : 1;
  return (scale < 1 ? scale : 1) + (norm - norm);
}

}  // namespace foretoken
