#include <cmath>

#include "backend/reference/reference_backend.h"

namespace foretoken {

using namespace reference;

// h = silu(gate) · up, silu(g) = g · σ(g)
void ReferenceBackend::swiglu_forward(View gate_up, View h) {
  for (std::int64_t n = 0; n < h.rows; ++n)
    for (std::int64_t f = 0; f < h.cols; ++f) {
      const double gate = get(gate_up, n, f), up = get(gate_up, n, h.cols + f);
      set(h, n, f, gate / (1 + std::exp(-gate)) * up);
    }
}

// dgate = dh · up · σ(g) · (1 + g · (1 − σ(g))), dup = dh · silu(g)
void ReferenceBackend::swiglu_backward(View dh, View gate_up, View dgate_up) {
  for (std::int64_t n = 0; n < dh.rows; ++n)
    for (std::int64_t f = 0; f < dh.cols; ++f) {
      const double gate = get(gate_up, n, f), up = get(gate_up, n, dh.cols + f), d = get(dh, n, f);
      const double sigmoid = 1 / (1 + std::exp(-gate));
      set(dgate_up, n, f, d * up * sigmoid * (1 + gate * (1 - sigmoid)));
      set(dgate_up, n, dh.cols + f, d * gate * sigmoid);
    }
}

}  // namespace foretoken
