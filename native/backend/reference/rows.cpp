#include "backend/reference/reference_backend.h"

namespace foretoken {

using namespace reference;

void ReferenceBackend::gather_rows(View x, const std::int32_t* index, View y) {
  for (std::int64_t m = 0; m < y.rows; ++m) set_row(y, m, get_row(x, index[m]));
}

void ReferenceBackend::scatter_add_rows(View dy, const std::int32_t* index, View dx) {
  for (std::int64_t m = 0; m < dy.rows; ++m) add_row(dx, index[m], get_row(dy, m));
}

}  // namespace foretoken
