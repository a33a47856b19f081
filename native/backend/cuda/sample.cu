#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/head_row.h"
#include "backend/cuda/select.h"
#include "core/philox.h"

namespace foretoken::cuda {

namespace {

/// Weights, at most 1, become integers: their sums are exact up to a vocabulary of 2²⁰ tokens.
constexpr double kWeightUnit = 0x1p43;
constexpr std::int64_t kMostTokens = std::int64_t{1} << 20;

/// Sets of tokens, a bit for each; null where no token is in it.
struct BannedSets {
  std::uint32_t *always, *where_none_may_stop;
};

FORETOKEN_KERNEL void ban_kernel(TokenRules rules, std::int64_t vocabulary, BannedSets sets) {
  for (std::int64_t i = global_index(); i < rules.banned_count + rules.stops_count; i += global_threads()) {
    const bool always = i < rules.banned_count;
    const std::int32_t token = always ? rules.banned[i] : rules.stops[i - rules.banned_count];
    if (token < 0 || token >= vocabulary) continue;
    const std::uint32_t bit = 1u << token % 32;
    if (always) atomic_or(sets.always + token / 32, bit);
    atomic_or(sets.where_none_may_stop + token / 32, bit);
  }
}

/// The tokens of a row that may still be drawn.
struct Candidates {
  const float* logits;         // (V)
  const std::uint32_t* banned; // (V / 32, rounded up) or null
  float most, inverse_temperature, min_p;
  std::uint32_t least_key;     // of equals with this key, those up to last_equal stay
  std::int64_t last_equal;

  FORETOKEN_DEVICE bool allowed(std::int64_t i) const { return !banned || !(banned[i / 32] >> i % 32 & 1); }
  FORETOKEN_DEVICE bool has(std::int64_t i) const {
    const std::uint32_t key = order_key(logits[i]);
    return (key > least_key || (key == least_key && i <= last_equal)) && allowed(i);
  }
  FORETOKEN_DEVICE float weight(std::int64_t i) const { return expf((logits[i] - most) * inverse_temperature); }
  FORETOKEN_DEVICE std::uint64_t mass(std::int64_t i) const {
    if (!has(i)) return 0;
    const float w = weight(i);
    return w >= min_p ? static_cast<std::uint64_t>(static_cast<double>(w) * kWeightUnit) : 0;
  }
};

template <typename MassOf>
FORETOKEN_DEVICE std::uint64_t total_mass(std::int64_t count, const MassOf& mass_of) {
  std::uint64_t sum = 0;
  for (std::int64_t i = thread_index(); i < count; i += block_threads()) sum += mass_of(i);
  return sum_block(sum);
}

/// Of the candidates, the greatest whose masses reach `wanted`; of equals the lower ids.
template <typename MassOf>
FORETOKEN_DEVICE void keep_greatest(Candidates& candidates, std::int64_t vocabulary, std::uint64_t wanted, const MassOf& mass_of) {
  const Selection selection =
      select(vocabulary, wanted, [&](std::int64_t i) { return order_key(candidates.logits[i]); }, mass_of);
  const std::int64_t last = first_reaching(
      vocabulary, [&](std::uint64_t) { return selection.missing; },
      [&](std::int64_t i) { return order_key(candidates.logits[i]) == selection.key ? mass_of(i) : 0; });
  candidates.least_key = selection.key;
  candidates.last_equal = last < 0 ? vocabulary : last;
}

// One draw by the six steps of backend/sampling.h, a block per row. Without filters it reads the row twice and a little.
FORETOKEN_KERNEL void FORETOKEN_BOUNDS(kMostHeadThreads, 2)
    sample_kernel(Matrix<const float> logits, std::int64_t vocabulary, const SampleRow* rows, BannedSets sets,
                  std::int32_t* tokens, float* logprobs) {
  const std::int64_t n = block_index();
  const SampleRow row = rows[n];
  if (!row.draws) return;
  const std::int64_t place = n + row.offset;
  const std::uint32_t* banned = row.may_stop ? sets.always : sets.where_none_may_stop;
  const float inverse_temperature = row.temperature == 0 ? 1.0f : static_cast<float>(1.0 / row.temperature);
  Candidates candidates{logits.row(n), banned, 0, inverse_temperature, 0, 0, vocabulary};

  float most = -INFINITY;
  const RowStatistics statistics =
      row_statistics(candidates.logits, vocabulary, logits.aligned, inverse_temperature, [&](std::int64_t i, float logit) {
        if (candidates.allowed(i)) most = Greatest()(most, logit);
      });
  most = reduce_block(most, Greatest());
  if (!(most > -INFINITY && most < INFINITY)) {  // the same for all threads
    if (thread_index() == 0) {
      tokens[place] = -1;
      logprobs[place] = NAN;
    }
    return;
  }
  candidates.most = most;

  std::int64_t token;
  if (row.temperature == 0) {
    token = first_reaching(
        vocabulary, [](std::uint64_t) { return std::uint64_t{1}; },
        [&](std::int64_t i) { return static_cast<std::uint64_t>(candidates.logits[i] == most && candidates.allowed(i)); });
  } else {
    if (row.top_k > 0 && row.top_k < vocabulary) {
      const auto one = [&](std::int64_t i) { return static_cast<std::uint64_t>(candidates.allowed(i)); };
      const std::uint64_t k = static_cast<std::uint64_t>(row.top_k);
      if (!banned || k < total_mass(vocabulary, one)) keep_greatest(candidates, vocabulary, k, one);
    }
    if (row.top_p < 1) {
      const Candidates left = candidates;
      const auto mass = [&](std::int64_t i) { return left.mass(i); };
      const double wanted = ceil(static_cast<double>(row.top_p) * static_cast<double>(total_mass(vocabulary, mass)));
      keep_greatest(candidates, vocabulary, wanted < 1 ? 1 : static_cast<std::uint64_t>(wanted), mass);
    }
    candidates.min_p = row.min_p;
    const auto mass = [&](std::int64_t i) { return candidates.mass(i); };
    const auto words = random_words(row.seed, RandomUse::Sampling, row.rollout, row.position);
    const double uniform = uniform_double(words[0], words[1]);
    const auto threshold = [&](std::uint64_t total) {
      return min_of(total, static_cast<std::uint64_t>(uniform * static_cast<double>(total)) + 1);
    };
    token = first_reaching(vocabulary, threshold, mass);
  }
  if (thread_index() == 0) {
    tokens[place] = static_cast<std::int32_t>(token);
    logprobs[place] = logprob_of(statistics, candidates.logits[token], inverse_temperature);
  }
}

}  // namespace

void CudaBackend::sample(View logits, const SampleRow* rows, const TokenRules& rules, std::int32_t* tokens, View logprobs) {
  const std::int64_t V = logits.cols;
  if (V > kMostTokens) fail(ErrorCode::UnsupportedConfig, "the GPU samples from at most ", kMostTokens, " tokens, not from ", V);
  const std::int64_t words = (V + 31) / 32, special = rules.banned_count + rules.stops_count;
  BannedSets sets{nullptr, nullptr};
  if (special > 0) {
    const std::size_t bytes = static_cast<std::size_t>(2 * words) * sizeof(std::uint32_t);
    auto* const bits = static_cast<std::uint32_t*>(scratch(bytes));
    if (rules.banned_count > 0) sets.always = bits;
    sets.where_none_may_stop = bits + words;
    device_->clear(bits, 1, bytes, 0);
    constexpr int threads = 128;
    FORETOKEN_LAUNCH(*device_, ban_kernel, (Grid{(special + threads - 1) / threads, threads}), rules, V, sets);
  }
  FORETOKEN_LAUNCH(*device_, sample_kernel, (Grid{logits.rows, head_threads(V)}), matrix<const float>(logits), V, rows, sets,
                   tokens, logprobs.as<float>());
}

}  // namespace foretoken::cuda
