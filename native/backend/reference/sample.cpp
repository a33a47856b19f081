#include <limits>

#include "backend/reference/log_sum_exp.h"
#include "backend/reference/reference_backend.h"
#include "backend/sampling.h"

namespace foretoken {

using namespace reference;

namespace {

/// One draw by the six steps of backend/sampling.h; `ids` are the tokens that may be drawn, in order. −1 if none can be.
std::int32_t draw(const Vector& logits, std::vector<std::int32_t> ids, const SampleRow& row) {
  for (std::int32_t id : ids)
    if (std::isnan(logits[id])) return -1;
  std::stable_sort(ids.begin(), ids.end(), [&](std::int32_t a, std::int32_t b) { return logits[a] > logits[b]; });
  if (ids.empty() || !std::isfinite(logits[ids[0]])) return -1;
  if (row.temperature == 0) return ids[0];

  const double max = logits[ids[0]];
  const auto weight = [&](std::int32_t id) {
    return std::exp((logits[id] - max) * inverse_temperature(row.temperature));
  };
  const auto sum_of_weights = [&] {
    double sum = 0;
    for (std::int32_t id : ids) sum += weight(id);
    return sum;
  };

  if (row.top_k > 0 && static_cast<std::size_t>(row.top_k) < ids.size()) ids.resize(row.top_k);
  if (row.top_p < 1) {
    const double wanted = row.top_p * sum_of_weights();
    double sum = 0;
    std::size_t kept = 0;
    while (kept == 0 || (sum < wanted && kept < ids.size())) sum += weight(ids[kept++]);
    ids.resize(kept);
  }
  if (row.min_p > 0) std::erase_if(ids, [&](std::int32_t id) { return weight(id) < row.min_p; });

  std::sort(ids.begin(), ids.end());
  const double threshold = sampling_uniform(row) * sum_of_weights();
  double sum = 0;
  for (std::int32_t id : ids) {
    sum += weight(id);
    if (sum > threshold) return id;
  }
  return ids.back();
}

}  // namespace

void ReferenceBackend::sample(View logits, const SampleRow* rows, const TokenRules& rules, std::int32_t* tokens, View logprobs) {
  const auto among = [](const std::int32_t* list, std::int64_t count, std::int32_t id) {
    return std::find(list, list + count, id) != list + count;
  };
  for (std::int64_t n = 0; n < logits.rows; ++n) {
    if (!rows[n].draws) continue;
    std::vector<std::int32_t> allowed;
    for (std::int32_t id = 0; id < logits.cols; ++id)
      if (!among(rules.banned, rules.banned_count, id) && (rows[n].may_stop || !among(rules.stops, rules.stops_count, id)))
        allowed.push_back(id);
    const std::int32_t token = draw(get_row(logits, n), std::move(allowed), rows[n]);
    const Vector z = tempered_row(logits, n, inverse_temperature(rows[n].temperature));
    const std::int64_t place = n + rows[n].offset;
    tokens[place] = token;
    set(logprobs, 0, place, token < 0 ? std::numeric_limits<double>::quiet_NaN() : z[token] - log_sum_exp(z));
  }
}

}  // namespace foretoken
