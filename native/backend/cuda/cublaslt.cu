#include "backend/cuda/cublaslt.h"

#include <algorithm>
#include <bit>
#include <compare>
#include <vector>

#include "backend/cuda/order_probe.h"
#include "core/error.h"

// cuBLASLt thinks in columns: a row-major (M, N) is its (N, M). So out = a · b becomes outᵀ = bᵀ · aᵀ, its A being our b
// and its B our a, and a bias along our columns is one along its rows, as it wants it.
namespace foretoken::cuda {

using namespace cublaslt;

namespace {

constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;
constexpr std::int64_t kRowBuckets[] = {16, 64, 256, 1024, 4096, 16384};  // more rows belong to the last one
constexpr std::int64_t kPinnedRows = 4096;
constexpr std::int64_t kPinned = 0;  // instead of a bucket
constexpr int kCandidates = 8;

void check(Status status, const char* what) {
  if (status != kSuccess) fail(ErrorCode::Internal, "cuBLASLt: ", what, " failed with status ", status);
}

int type_of(DType dtype) { return dtype == DType::BFloat16 ? kBFloat16 : kFloat32; }

/// A library object that is destroyed with its owner.
template <typename T>
class Owned {
 public:
  Owned() = default;
  Owned(T* object, Status (*destroy)(T*)) : object_(object), destroy_(destroy) {}
  Owned(Owned&& other) noexcept : object_(std::exchange(other.object_, nullptr)), destroy_(other.destroy_) {}
  Owned& operator=(Owned&& other) noexcept {
    std::swap(object_, other.object_);
    std::swap(destroy_, other.destroy_);
    return *this;
  }
  ~Owned() { if (object_) destroy_(object_); }
  T* get() const { return object_; }

 private:
  T* object_ = nullptr;
  Status (*destroy_)(T*) = nullptr;
};

Owned<Layout> make_layout(const Functions& library, const View& x) {
  Layout* layout = nullptr;
  check(library.layout_create(&layout, type_of(x.dtype), static_cast<std::uint64_t>(x.cols), static_cast<std::uint64_t>(x.rows), x.stride),
        "cublasLtMatrixLayoutCreate");
  return {layout, library.layout_destroy};
}

/// The four matrices of a product.
struct Layouts {
  Owned<Layout> a, b, c, d;
  Layouts(const Functions& library, const Product& product)
      : a(make_layout(library, product.b)), b(make_layout(library, product.a)),
        c(make_layout(library, product.residual ? product.residual : product.out)), d(make_layout(library, product.out)) {}
};

/// The same product for another number of rows; its matrices are not there.
Product with_rows(Product product, std::int64_t rows) {
  for (View* view : {&product.a, &product.out, &product.residual}) view->rows = rows;
  return product;
}

/// What every row of the matrix is aligned to, in bytes, 16 at most: a matter of its stride. 0 if it does not begin there.
std::uint32_t alignment_of(const View& x) {
  const auto stride = static_cast<std::uint64_t>(x.stride) * size_of(x.dtype);
  const std::uint64_t alignment = std::min<std::uint64_t>(16, stride & (~stride + 1));
  if (alignment == 0) return 0;
  return reinterpret_cast<std::uintptr_t>(x.data) % alignment == 0 ? static_cast<std::uint32_t>(alignment) : 0;
}

}  // namespace

struct CublasLt::Key {
  Product::Kind kind;
  std::int64_t cols, depth;  // depth 0: any, for gradients of weights, whose number of rows belongs to the shape instead
  std::int64_t rows;         // 0: any
  DType input, output;
  bool bias, residual;
  std::uint32_t alignment[4];  // of a, b, c, d as the library calls them
  auto operator<=>(const Key&) const = default;
};

struct CublasLt::Entry {
  Key key;
  Owned<Description> description;
  Owned<Preference> preference;
  std::map<std::int64_t, std::optional<Choice>> choices;  // by bucket of rows, or of depth

  std::vector<HeuristicResult> candidates(const Functions& library, Context* context, const Product& product) const {
    const Layouts layouts(library, product);
    HeuristicResult results[kCandidates];
    int found = 0;
    // Having none is an answer, which some versions give as a status.
    if (library.heuristic(context, description.get(), layouts.a.get(), layouts.b.get(), layouts.c.get(), layouts.d.get(),
                          preference.get(), kCandidates, results, &found) != kSuccess)
      found = 0;
    std::vector<HeuristicResult> usable;
    for (int i = 0; i < found; ++i)
      if (results[i].state == kSuccess) usable.push_back(results[i]);
    return usable;
  }

  /// The algorithm with the workspace that this product needs, if it can do it.
  std::optional<Choice> checked(const Functions& library, Context* context, const Product& product, const Algorithm& algorithm,
                                std::size_t most_workspace) const {
    const Layouts layouts(library, product);
    HeuristicResult result{};
    if (library.check(context, description.get(), layouts.a.get(), layouts.b.get(), layouts.c.get(), layouts.d.get(), &algorithm,
                      &result) != kSuccess || result.workspace_bytes > most_workspace)
      return std::nullopt;
    return Choice{algorithm, result.workspace_bytes};
  }
};

CublasLt::CublasLt(Device& device, const Functions& functions, bool allow_tf32)
    : device_(device), functions_(functions), allow_tf32_(allow_tf32) {
  device_.enter();
  if (const Status status = functions_.create(&context_); status != kSuccess)
    fail(ErrorCode::DeviceUnavailable, functions_.path, " does not work with this GPU or its driver (cublasLtCreate: status ", status, ')');
}

CublasLt::~CublasLt() {
  entries_.clear();
  functions_.destroy(context_);
  if (workspace_) device_.release(workspace_);
}

std::string CublasLt::name() const {
  const std::size_t version = functions_.get_version();  // 130102 is 13.1.2
  return "cuBLASLt " + std::to_string(version / 10000) + '.' + std::to_string(version / 100 % 100) + '.' + std::to_string(version % 100) +
         (allow_tf32_ ? ", TF32" : "");
}

std::size_t CublasLt::workspace_bytes() const { return kWorkspaceBytes; }

void* CublasLt::workspace() {
  if (!workspace_) workspace_ = device_.allocate(kWorkspaceBytes);
  return workspace_;
}

bool CublasLt::multiply(const Product& product) {
  // A bias has the dtype of the result, and so has what is added.
  if ((product.bias || product.residual) && product.out.dtype != DType::Float32) return false;
  const bool gradient = product.kind == Product::Kind::BackwardWeight;
  const View& residual = product.residual ? product.residual : product.out;
  const Key key{product.kind,
                product.out.cols,
                gradient ? 0 : product.depth(),
                gradient ? product.out.rows : 0,
                product.a.dtype,
                product.out.dtype,
                static_cast<bool>(product.bias),
                static_cast<bool>(product.residual),
                {alignment_of(product.b), alignment_of(product.a), alignment_of(residual), alignment_of(product.out)}};
  for (const std::uint32_t alignment : key.alignment)
    if (alignment == 0) return false;
  // Searches take the pointer's alignment as that of every bias to come.
  if (reinterpret_cast<std::uintptr_t>(product.bias.data) % 16 != 0) return false;
  device_.enter();
  Entry& entry = entry_for(key);
  set_bias(entry, product);  // which searches look at, too
  const std::optional<Choice> choice = choose(entry, product);
  if (choice) queue(entry, product, *choice);
  return choice.has_value();
}

CublasLt::Entry& CublasLt::entry_for(const Key& key) {
  std::unique_ptr<Entry>& entry = entries_[key];
  if (entry) return *entry;
  auto made = std::make_unique<Entry>();
  made->key = key;
  Description* description = nullptr;
  const int compute = allow_tf32_ && key.input == DType::Float32 ? kComputeTf32 : kComputeFloat32;
  check(functions_.description_create(&description, compute, kFloat32), "cublasLtMatmulDescCreate");
  made->description = {description, functions_.description_destroy};
  Preference* preference = nullptr;
  check(functions_.preference_create(&preference), "cublasLtMatmulPreferenceCreate");
  made->preference = {preference, functions_.preference_destroy};

  const auto set = [&](int attribute, std::int32_t value) {
    check(functions_.description_set(description, attribute, &value, sizeof value), "cublasLtMatmulDescSetAttribute");
  };
  set(kTransposeA, key.kind == Product::Kind::Forward ? kTransposed : kAsStored);
  set(kTransposeB, key.kind == Product::Kind::BackwardWeight ? kTransposed : kAsStored);
  if (key.bias) set(kEpilogue, kEpilogueBias);

  const auto prefer = [&](int attribute, const auto& value) {
    check(functions_.preference_set(preference, attribute, &value, sizeof value), "cublasLtMatmulPreferenceSetAttribute");
  };
  const bool gradient = key.kind == Product::Kind::BackwardWeight;
  prefer(kMaxWorkspace, std::uint64_t{gradient ? kWorkspaceBytes : 0});
  prefer(kReductionMask, gradient ? kReductionInWorkspace : kReductionNone);
  for (int i = 0; i < 4; ++i) prefer(kAlignmentA + i, key.alignment[i]);
  entry = std::move(made);
  return *entry;
}

std::optional<CublasLt::Choice> CublasLt::choose(Entry& entry, const Product& product) {
  return entry.key.kind == Product::Kind::BackwardWeight ? choose_for_depth(entry, product) : choose_for_rows(entry, product);
}

std::optional<CublasLt::Choice> CublasLt::choose_for_rows(Entry& entry, const Product& product) {
  const auto [pinned_place, pinned_is_fresh] = entry.choices.try_emplace(kPinned);
  std::optional<Choice>& pinned = pinned_place->second;
  // One that declined some number of rows would leave those to another order.
  if (pinned_is_fresh)
    for (const HeuristicResult& result : entry.candidates(functions_, context_, with_rows(product, kPinnedRows)))
      if (!pinned && does(entry, product, result, {1, 2, 7, 16, 64, 200, 1000, kPinnedRows, 16384, 65536})) pinned = Choice{result.algorithm};
  const auto* found = std::lower_bound(std::begin(kRowBuckets), std::end(kRowBuckets), product.out.rows);
  const std::int64_t bucket = found == std::end(kRowBuckets) ? found[-1] : *found;
  if (!pinned || bucket == kPinnedRows) return pinned;
  const auto [place, fresh] = entry.choices.try_emplace(bucket, pinned);
  if (fresh) place->second = best_with_the_same_bits(entry, product, bucket, *pinned);
  return place->second;
}

bool CublasLt::does(const Entry& entry, const Product& product, const HeuristicResult& result, std::initializer_list<std::int64_t> rows) const {
  return result.workspace_bytes == 0 && std::ranges::all_of(rows, [&](std::int64_t count) {
    return entry.checked(functions_, context_, with_rows(product, count), result.algorithm, 0).has_value();
  });
}

CublasLt::Choice CublasLt::best_with_the_same_bits(Entry& entry, const Product& product, std::int64_t bucket, const Choice& pinned) try {
  const auto* place = std::find(std::begin(kRowBuckets), std::end(kRowBuckets), bucket);
  const std::int64_t least = place == std::begin(kRowBuckets) ? 1 : place[-1] + 1;
  const std::int64_t most = place + 1 == std::end(kRowBuckets) ? 4 * bucket : bucket;
  OrderProbe probe(device_, product);
  queue(entry, probe.product(0), pinned);
  for (const HeuristicResult& result : entry.candidates(functions_, context_, with_rows(product, bucket))) {
    const Choice candidate{result.algorithm};
    if (!does(entry, product, result, {least, (least + bucket) / 2, bucket, most}) ||
        !entry.checked(functions_, context_, probe.product(1), result.algorithm, 0))
      continue;
    if (run(entry, probe.product(1), candidate) == kSuccess && probe.equal()) return candidate;
  }
  return pinned;
} catch (const Error& error) {
  if (error.code() != ErrorCode::OutOfMemory) throw;
  return pinned;  // no room to look for a better one
}

std::optional<CublasLt::Choice> CublasLt::choose_for_depth(Entry& entry, const Product& product) {
  const auto with_depth = [&](std::int64_t depth) {
    Product other = product;
    other.a.rows = other.b.rows = depth;
    return other;
  };
  const auto bucket = static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(product.depth())));
  const auto [place, fresh] = entry.choices.try_emplace(bucket);
  if (fresh)
    for (const HeuristicResult& result : entry.candidates(functions_, context_, with_depth(bucket)))
      if (!place->second) place->second = Choice{result.algorithm, result.workspace_bytes};
  if (!place->second) return std::nullopt;
  if (auto choice = entry.checked(functions_, context_, product, place->second->algorithm, kWorkspaceBytes)) return choice;
  // The workspace may grow with the depth.
  const std::vector<HeuristicResult> own = entry.candidates(functions_, context_, product);
  if (own.empty()) return std::nullopt;
  return Choice{own.front().algorithm, own.front().workspace_bytes};
}

void CublasLt::set_bias(Entry& entry, const Product& product) {
  if (product.bias)
    check(functions_.description_set(entry.description.get(), kBiasPointer, &product.bias.data, sizeof(void*)), "setting the bias");
}

Status CublasLt::run(Entry& entry, const Product& product, const Choice& choice) {
  const Layouts layouts(functions_, product);
  set_bias(entry, product);
  const float one = 1, factor = product.residual ? 1.0f : 0.0f;
  const View& c = product.residual ? product.residual : product.out;
  return functions_.matmul(context_, entry.description.get(), &one, product.b.data, layouts.a.get(), product.a.data, layouts.b.get(),
                           &factor, c.data, layouts.c.get(), product.out.data, layouts.d.get(), &choice.algorithm,
                           choice.workspace_bytes ? workspace() : nullptr, choice.workspace_bytes, device_.stream());
}

void CublasLt::queue(Entry& entry, const Product& product, const Choice& choice) {
  if (const Status status = run(entry, product, choice); status != kSuccess)
    fail(ErrorCode::Internal, "cuBLASLt: cublasLtMatmul failed with status ", status, " for a product of ", product.out.rows, " by ",
         product.out.cols, " over ", product.depth(), "; FORETOKEN_CUDA_MATMUL=plain does without cuBLASLt");
}

}  // namespace foretoken::cuda
