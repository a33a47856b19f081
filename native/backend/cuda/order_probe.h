#pragma once

#include "backend/cuda/matmul.h"

namespace foretoken::cuda {

/// A small product like a given one, on made-up numbers, done twice and compared: whether two algorithms add up a row in
/// the same order. The sums pass through numbers hundreds of times as large as their results, so that every rounding on
/// the way, and with it the order, shows in the results' bits, bfloat16 ones too.
class OrderProbe {
 public:
  /// `like` is a Forward or a BackwardInput. Holds its operands until it is destroyed.
  OrderProbe(Device& device, const Product& like);
  ~OrderProbe();
  OrderProbe(const OrderProbe&) = delete;
  OrderProbe& operator=(const OrderProbe&) = delete;

  /// The product that writes result 0 or 1.
  Product product(int result) const;
  /// Whether the two results are equal to the bit; waits for them.
  bool equal() const;

 private:
  Device& device_;
  Product product_;
  View results_[2];
  std::uint32_t* differences_ = nullptr;
  void* memory_ = nullptr;
};

}  // namespace foretoken::cuda
