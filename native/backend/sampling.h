#pragma once

#include "backend/backend.h"
#include "core/philox.h"

namespace foretoken {

// How `Backend::sample` draws a token from one row of logits z (V), the same on every device:
//
//  1. Banned tokens are taken out, and stop tokens where the row may not stop. Temperature 0: the token with the largest remaining logit, the first of equals.
//  2. Weights: w_i = exp((z_i − z_max) · inverse_temperature), z_max over the remaining tokens.
//  3. top-k: the k largest logits stay; among equals the lower id goes first.
//  4. top-p: of these, in the same order, the shortest beginning whose weights sum to at least top_p of their sum.
//  5. min-p: of these, the ones with w_i >= min_p.
//  6. The first token in order of ids at which the running sum of the weights that stayed exceeds
//     sampling_uniform(row) times their total.
//
// The order of the filters is that of transformers' generate. The token of z_max always stays. The log-prob that is
// reported knows nothing of steps 1 and 3 to 5: it is the one of the softmax over all of z · inverse_temperature.
// A row without a finite largest logit (NaN, infinity, everything banned) gives token −1 and log-prob NaN.

/// What the logits of a row are multiplied by; greedy rows report log-probs at temperature 1.
inline double inverse_temperature(double temperature) {
  return temperature == 0 ? 1.0 : 1.0 / temperature;
}

/// The row's random number in (0, 1): it depends on seed, rollout and position only.
inline double sampling_uniform(const SampleRow& row) {
  const auto words = random_words(row.seed, RandomUse::Sampling, row.rollout, row.position);
  return uniform_double(words[0], words[1]);
}

}  // namespace foretoken
