#pragma once

#include "objective/loss_terms.h"

namespace foretoken {

/// The surrogate's loss at one token and what it did there.
struct Surrogate {
  double loss = 0;
  double derivative = 0;  // with respect to log r (clip, gspo) or to the log-prob (cispo)
  bool clipped_low = false, clipped_high = false, dual_clipped = false;
};

/// Clip (arXiv 1707.06347, asymmetric bounds as in arXiv 2503.14476; dual clip arXiv 1912.09729) and gspo
/// (arXiv 2507.18071, r of the whole sequence):
///   −min(r·A, clamp(r, 1 − low, 1 + high)·A), for A < 0 at most −dual·A.
/// Cispo (arXiv 2506.13585): −stop_gradient(clamp(r, 1 − low, 1 + high))·A·logprob.
Surrogate surrogate(const PolicyTerm& term, double ratio, double advantage, double logprob);

/// An estimate of KL(policy ‖ reference) from one sampled token, and its derivative by the log-prob
/// (Schulman, "Approximating KL Divergence", 2020): k1 = p − q, k2 = (p − q)² / 2, k3 = exp(q − p) − (q − p) − 1.
struct KlTerm {
  double value = 0, derivative = 0;
};
KlTerm kl_estimate(KlEstimator estimator, double logprob, double reference);

}  // namespace foretoken
