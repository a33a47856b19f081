#include "backend/sampling.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "backend/cpu/operations.h"
#include "backend/cpu/softmax_row.h"

namespace foretoken::cpu {

namespace {

/// One worker's memory for one row.
struct DrawMemory {
  float* logits;       // (V) without the banned tokens
  float* weights;      // (V)
  std::int32_t* ids;   // (V)
  float* sums;         // (chunks)
};

std::int64_t chunks_of(std::int64_t cols) { return (cols + kWeightChunk - 1) / kWeightChunk; }

/// Steps 3 to 5 of backend/sampling.h: the weights of tokens that must not be drawn become 0.
void filter(const Kernels& kernels, const SampleRow& row, const float* logits, std::int64_t cols,
            const DrawMemory& memory) {
  const auto before = [&](std::int32_t a, std::int32_t b) {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
  };
  std::int32_t* ids = memory.ids;
  // The k greatest, and what equals the last of them, are all that is worth looking at.
  float least = std::numeric_limits<float>::lowest();
  if (row.top_k > 0 && row.top_k <= std::min<std::int64_t>(kGreatestTopK, cols)) {
    float greatest[kGreatestTopK];
    kernels.top_values(logits, cols, row.top_k, greatest);
    least = std::max(least, greatest[row.top_k - 1]);
  }
  std::int64_t count = 0;
  for (std::int32_t id = 0; id < cols; ++id) {
    if (logits[id] >= least) ids[count++] = id;
    else memory.weights[id] = 0;
  }

  const auto keep = [&](std::int64_t kept) {
    for (std::int64_t i = kept; i < count; ++i) memory.weights[ids[i]] = 0;
    count = kept;
  };
  if (row.top_k > 0 && row.top_k < count) {
    std::nth_element(ids, ids + row.top_k, ids + count, before);
    keep(row.top_k);
  }
  if (row.top_p < 1) {
    double total = 0;
    for (std::int64_t i = 0; i < count; ++i) total += memory.weights[ids[i]];
    const double wanted = row.top_p * total;
    double sum = 0;
    std::int64_t kept = 0;
    // Most often few tokens are enough: sort no more than needed.
    for (std::int64_t sorted = 0; kept < count && (kept == 0 || sum < wanted);) {
      if (kept == sorted) {
        const std::int64_t next = std::min(count, std::max<std::int64_t>(64, 8 * sorted));
        std::partial_sort(ids + sorted, ids + next, ids + count, before);
        sorted = next;
      }
      sum += memory.weights[ids[kept++]];
    }
    keep(kept);
  }
  if (row.min_p > 0)
    for (std::int64_t i = 0; i < count; ++i)
      if (memory.weights[ids[i]] < row.min_p) memory.weights[ids[i]] = 0;
}

/// Step 6: the first token at which the running sum exceeds `uniform` of the whole, found by chunks.
std::int32_t pick(const float* weights, const float* sums, std::int64_t cols, double uniform) {
  double total = 0;
  for (std::int64_t chunk = 0; chunk < chunks_of(cols); ++chunk) total += sums[chunk];
  const double threshold = uniform * total;
  double sum = 0;
  std::int32_t last = -1;  // rounding may leave the running sum short of the threshold
  for (std::int64_t chunk = 0; chunk < chunks_of(cols); ++chunk) {
    const bool inside = sum + sums[chunk] > threshold || chunk + 1 == chunks_of(cols);
    if (!inside) { sum += sums[chunk]; continue; }
    const std::int64_t begin = chunk * kWeightChunk, end = std::min<std::int64_t>(cols, begin + kWeightChunk);
    double running = sum;
    for (std::int64_t id = begin; id < end; ++id) {
      if (weights[id] == 0) continue;
      running += weights[id];
      last = static_cast<std::int32_t>(id);
      if (running > threshold) return last;
    }
    if (last >= 0) return last;
    sum += sums[chunk];
  }
  for (std::int64_t id = cols; last < 0 && id-- > 0;)
    if (weights[id] > 0) last = static_cast<std::int32_t>(id);
  return last;
}

/// Draws from `weights` = exp((logits − max) · inverse temperature), which it changes.
std::int32_t draw(const Kernels& kernels, const SampleRow& row, const float* logits, std::int64_t cols,
                  const DrawMemory& memory) {
  if (row.top_k > 0 || row.top_p < 1 || row.min_p > 0) filter(kernels, row, logits, cols, memory);
  kernels.chunk_sums(memory.weights, cols, memory.sums);
  return pick(memory.weights, memory.sums, cols, sampling_uniform(row));
}

}  // namespace

std::int64_t sample_scratch(std::int64_t vocabulary) { return 3 * vocabulary + chunks_of(vocabulary); }

void CpuBackend::sample(View logits, const SampleRow* rows, const TokenRules& rules, std::int32_t* tokens, View logprobs) {
  const std::int64_t V = logits.cols, floats = sample_scratch(V);
  float* scratch_memory = scratch(team_.size(), floats);
  team_.parallel_for(logits.rows, [&](std::int64_t n, int worker) {
    if (!rows[n].draws) return;
    const std::int64_t place = n + rows[n].offset;
    std::int32_t& token = tokens[place];
    float& logprob = logprobs.as<float>()[place];
    const std::int64_t refused_stops = rows[n].may_stop ? 0 : rules.stops_count;
    const bool some_banned = rules.banned_count + refused_stops > 0;
    float* base = scratch_memory + worker * floats;
    const DrawMemory memory{base, base + V, reinterpret_cast<std::int32_t*>(base + 2 * V), base + 3 * V};
    const float* row = logits.row<float>(n);
    const float* allowed = row;
    if (some_banned) {
      std::memcpy(memory.logits, row, static_cast<std::size_t>(V) * sizeof(float));
      const auto ban = [&](const std::int32_t* list, std::int64_t count) {
        for (std::int64_t i = 0; i < count; ++i)
          if (list[i] >= 0 && list[i] < V) memory.logits[list[i]] = -std::numeric_limits<float>::infinity();
      };
      ban(rules.banned, rules.banned_count);
      ban(rules.stops, refused_stops);
      allowed = memory.logits;
    }
    const float most = kernels_.greatest(allowed, V);
    if (!std::isfinite(most)) {
      token = -1;
      logprob = std::numeric_limits<float>::quiet_NaN();
      return;
    }
    const float factor = static_cast<float>(inverse_temperature(rows[n].temperature));
    const RowStatistics statistics = kernels_.row_statistics(row, V, factor, memory.weights);
    if (rows[n].temperature == 0) {
      token = static_cast<std::int32_t>(std::find(allowed, allowed + V, most) - allowed);
    } else {
      if (some_banned) kernels_.sampling_weights(allowed, V, most, factor, memory.weights);
      token = draw(kernels_, rows[n], allowed, V, memory);
    }
    logprob = logprob_of(statistics, row[token], factor);
  });
}

}  // namespace foretoken::cpu
