#pragma once

#include <initializer_list>
#include <map>
#include <optional>

#include "backend/cuda/cublaslt_api.h"
#include "backend/cuda/matmul.h"

namespace foretoken::cuda {

/// Products by cuBLASLt. For each kind of product (shape of the weight, dtypes, alignment) one algorithm is chosen once,
/// without splitting the sum: a row's bits do not depend on the batch. Where cuBLASLt knows a better one for fewer or more
/// rows, that is taken if an OrderProbe finds the same bits. Gradients of weights may be sums
/// of sums, added up in a workspace in a fixed order.
class CublasLt final : public MatmulLibrary {
 public:
  /// Throws DeviceUnavailable when the library does not work with this device or driver.
  CublasLt(Device& device, const cublaslt::Functions& functions, bool allow_tf32);
  ~CublasLt() override;

  std::string name() const override;
  bool multiply(const Product& product) override;
  std::size_t workspace_bytes() const override;

 private:
  struct Key;
  struct Choice {
    cublaslt::Algorithm algorithm;
    std::size_t workspace_bytes = 0;
  };
  struct Entry;

  Entry& entry_for(const Key& key);
  std::optional<Choice> choose(Entry& entry, const Product& product);
  std::optional<Choice> choose_for_rows(Entry& entry, const Product& product);
  /// Whether what was found does the product with each of these numbers of rows, without a workspace.
  bool does(const Entry& entry, const Product& product, const cublaslt::HeuristicResult& result, std::initializer_list<std::int64_t> rows) const;
  /// The first of the algorithms for numbers of rows in a bucket whose sums have the order of the pinned one's.
  Choice best_with_the_same_bits(Entry& entry, const Product& product, std::int64_t bucket, const Choice& pinned);
  std::optional<Choice> choose_for_depth(Entry& entry, const Product& product);
  void set_bias(Entry& entry, const Product& product);
  cublaslt::Status run(Entry& entry, const Product& product, const Choice& choice);
  /// run, and it has to succeed.
  void queue(Entry& entry, const Product& product, const Choice& choice);
  void* workspace();

  Device& device_;
  cublaslt::Functions functions_;
  bool allow_tf32_;
  cublaslt::Context* context_ = nullptr;
  std::map<Key, std::unique_ptr<Entry>> entries_;
  void* workspace_ = nullptr;
};

}  // namespace foretoken::cuda
