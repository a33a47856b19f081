#include "backend/reference/reference_backend.h"

namespace foretoken {

using namespace reference;

// x[n] = table[tokens[n]]
void ReferenceBackend::embed_forward(const std::int32_t* tokens, View table, View x) {
  for (std::int64_t n = 0; n < x.rows; ++n) set_row(x, n, get_row(table, tokens[n]));
}

// dtable[tokens[n]] += dx[n]
void ReferenceBackend::embed_backward(const std::int32_t* tokens, View dx, View dtable) {
  for (std::int64_t n = 0; n < dx.rows; ++n) add_row(dtable, tokens[n], get_row(dx, n));
}

}  // namespace foretoken
