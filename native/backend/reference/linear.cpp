#include "backend/reference/reference_backend.h"

namespace foretoken {

using namespace reference;

namespace {

class ReferenceWeight final : public Weight {
 public:
  ReferenceWeight(std::int64_t outputs, std::int64_t inputs) : rows(outputs, Vector(inputs)) {}
  std::size_t bytes() const override { return rows.size() * (rows.empty() ? 0 : rows[0].size()) * sizeof(double); }

  std::vector<Vector> rows;  // (O, I)
};

const std::vector<Vector>& rows_of(const Weight& weight) { return static_cast<const ReferenceWeight&>(weight).rows; }

}  // namespace

std::unique_ptr<Weight> ReferenceBackend::make_weight(std::int64_t outputs, std::int64_t inputs, bool) {
  return std::make_unique<ReferenceWeight>(outputs, inputs);
}

std::size_t ReferenceBackend::weight_bytes(std::int64_t outputs, std::int64_t inputs, bool) const {
  return static_cast<std::size_t>(outputs * inputs) * sizeof(double);
}

void ReferenceBackend::pack_weight(Weight& weight, View master) {
  auto& rows = static_cast<ReferenceWeight&>(weight).rows;
  for (std::int64_t o = 0; o < master.rows; ++o) rows[o] = get_row(master, o);
}

// y[n, o] = x[n] · w[o] + bias[o] + residual[n, o]
void ReferenceBackend::linear_forward(View x, const Weight& weight, View bias, View residual, View y) {
  const auto& w = rows_of(weight);
  for (std::int64_t n = 0; n < x.rows; ++n) {
    const Vector in = get_row(x, n);
    for (std::int64_t o = 0; o < y.cols; ++o)
      set(y, n, o, dot(in, w[o]) + (bias ? get(bias, 0, o) : 0) + (residual ? get(residual, n, o) : 0));
  }
}

// dx[n] = Σₒ dy[n, o] · w[o]
void ReferenceBackend::linear_backward_input(View dy, const Weight& weight, View dx, bool accumulate) {
  const auto& w = rows_of(weight);
  for (std::int64_t n = 0; n < dy.rows; ++n) {
    Vector sum(dx.cols);
    for (std::int64_t o = 0; o < dy.cols; ++o) {
      const double g = get(dy, n, o);
      for (std::int64_t i = 0; i < dx.cols; ++i) sum[i] += g * w[o][i];
    }
    accumulate ? add_row(dx, n, sum) : set_row(dx, n, sum);
  }
}

// dweight[o] += Σₙ dy[n, o] · x[n]
void ReferenceBackend::linear_backward_weight(View dy, View x, View dweight) {
  for (std::int64_t o = 0; o < dy.cols; ++o) {
    Vector sum(x.cols);
    for (std::int64_t n = 0; n < dy.rows; ++n) {
      const double g = get(dy, n, o);
      for (std::int64_t i = 0; i < x.cols; ++i) sum[i] += g * get(x, n, i);
    }
    add_row(dweight, o, sum);
  }
}

// dbias[o] += Σₙ dy[n, o]
void ReferenceBackend::bias_backward(View dy, View dbias) {
  for (std::int64_t o = 0; o < dy.cols; ++o) {
    double sum = 0;
    for (std::int64_t n = 0; n < dy.rows; ++n) sum += get(dy, n, o);
    add(dbias, 0, o, sum);
  }
}

}  // namespace foretoken
