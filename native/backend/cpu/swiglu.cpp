#include "backend/cpu/operations.h"

namespace foretoken::cpu {

void CpuBackend::swiglu_forward(View gate_up, View h) {
  for_rows(h.rows, h.cols, [&](std::int64_t begin, std::int64_t rows, int) {
    for (std::int64_t n = begin; n < begin + rows; ++n) {
      const View row = gate_up.slice_rows(n, 1);
      kernels_.swiglu_forward(row.data, row.slice_cols(h.cols, h.cols).data, h.slice_rows(n, 1).data, h.cols);
    }
  });
}

void CpuBackend::swiglu_backward(View dh, View gate_up, View dgate_up) {
  for_rows(dh.rows, dh.cols, [&](std::int64_t begin, std::int64_t rows, int) {
    for (std::int64_t n = begin; n < begin + rows; ++n) {
      const View row = gate_up.slice_rows(n, 1), drow = dgate_up.slice_rows(n, 1);
      kernels_.swiglu_backward(dh.slice_rows(n, 1).data, row.data, row.slice_cols(dh.cols, dh.cols).data, drow.data,
                               drow.slice_cols(dh.cols, dh.cols).data, dh.cols);
    }
  });
}

}  // namespace foretoken::cpu
