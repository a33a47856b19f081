#include "backend/reference/rms_norm.h"

#include "backend/reference/reference_backend.h"

namespace foretoken {

using namespace reference;

// y = x · rstd · w
void ReferenceBackend::norm_forward(View x, View weight, double epsilon, View y, View rstd) {
  for (std::int64_t n = 0; n < x.rows; ++n) {
    const double r = reciprocal_rms(get_row(x, n), epsilon);
    for (std::int64_t c = 0; c < x.cols; ++c) set(y, n, c, get(x, n, c) * r * get(weight, 0, c));
    set(rstd, 0, n, r);
  }
}

// dweight += Σₙ dy · x · rstd; dx as in rms_norm.h
void ReferenceBackend::norm_backward(View x, View weight, View rstd, View dy, View dx, View dx_t, View dweight) {
  const Vector w = get_row(weight, 0);
  for (std::int64_t n = 0; n < x.rows; ++n) {
    const double r = get(rstd, 0, n);
    add_row(dx, n, rms_norm_input_gradient(get_row(x, n), w, r, get_row(dy, n)));
    if (dx_t) set_row(dx_t, n, get_row(dx, n));
    for (std::int64_t c = 0; c < x.cols; ++c) add(dweight, 0, c, get(dy, n, c) * get(x, n, c) * r);
  }
}

}  // namespace foretoken
