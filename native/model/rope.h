#pragma once

#include <cstdint>
#include <vector>

#include "model/config.h"

namespace foretoken {

/// The angles' frequencies and the factor that cos and sin are multiplied with.
struct RopeFrequencies {
  std::vector<float> inverse;      // (D/2) radians per position
  float attention_scaling = 1.0f;  // yarn scales cos and sin; 1 elsewhere
};

/// Computes the frequencies as transformers does (`modeling_rope_utils.py`), in float32 where it does.
///
/// `max_length` is the longest sequence the engine will ever see; it matters for `dynamic` (NTK) only. There
/// transformers derives the base from the length of the batch under way, so that a token's log-prob depends on what
/// stands beside and behind it, and cached keys keep the base of the moment they were computed at. Here a token's
/// log-prob depends on its prefix alone, therefore the base is fixed once, to the one transformers uses for a sequence
/// of `max_length` tokens: with `max_length` at most `max_position_embeddings` (or 0) every sequence equals
/// transformers' result; with a larger one, sequences of that length do.
RopeFrequencies rope_frequencies(const ModelConfig& config, std::int64_t max_length = 0);

/// Fills table (T, D): row p holds cos of the D/2 angles p · inverse, then their sines, both times attention_scaling.
/// Each entry is the float32 nearest to the function of the float32 angle, so the table is the same everywhere.
void fill_rope_table(const RopeFrequencies& frequencies, std::int64_t T, float* table);

}  // namespace foretoken
