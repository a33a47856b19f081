#include "engine/kept_rows.h"

#include <algorithm>

namespace foretoken {

KeptRows find_kept(const KeptActivations& kept, const std::vector<std::int32_t>& row_of_token, const PackedBatch& packed) {
  KeptRows found;
  std::vector<std::int32_t>& rows = found.rows;
  rows.resize(packed.tokens.size());
  for (std::size_t run = 0; run < packed.runs.size(); ++run) {
    const Run& r = packed.runs[run];
    for (std::int32_t row = r.row; row < r.row + r.count; ++row) rows[row] = row_of_token[packed.forest_index[row]];
    // A rollout of one token has not gone through the network in sampling, and nothing depends on its row: it is given the
    // activations of the token before, which a gradient of zero multiplies.
    const bool has_target = std::binary_search(packed.head_rows.begin(), packed.head_rows.end(), r.row);
    if (r.count == 1 && rows[r.row] < 0 && r.position > 0 && !has_target && !packed.has_children(run))
      rows[r.row] = rows[packed.path_rows[packed.path_begin[run] + r.position - 1]];
  }
  if (std::find_if(rows.begin(), rows.end(), [](std::int32_t row) { return row < 0; }) != rows.end()) return {};
  for (const std::int32_t row : packed.head_rows) found.logits.push_back(kept.logits_of(rows[row]));
  if (std::find(found.logits.begin(), found.logits.end(), -1) != found.logits.end()) found.logits.clear();
  return found;
}

}  // namespace foretoken
