#include "backend/cpu/operations.h"

namespace foretoken::cpu {

namespace {

NormRows rows_of(const View& x, const View& weight, std::int64_t begin, std::int64_t rows) {
  NormRows job;
  job.x = x.row<float>(begin);
  job.x_stride = x.stride;
  job.weight = weight.as<float>();
  job.rows = rows;
  job.cols = x.cols;
  return job;
}

}  // namespace

void CpuBackend::norm_forward(View x, View weight, double epsilon, View y, View rstd) {
  for_rows(x.rows, x.cols, [&](std::int64_t begin, std::int64_t rows, int) {
    NormRows job = rows_of(x, weight, begin, rows);
    job.epsilon = static_cast<float>(epsilon);
    job.y = y.slice_rows(begin, rows).data;
    job.y_stride = y.stride;
    job.rstd = rstd ? rstd.as<float>() + begin : nullptr;
    kernels_.norm_forward(job);
  });
}

void CpuBackend::norm_backward(View x, View weight, View rstd, View dy, View dx, View dx_t, View dweight) {
  const std::int64_t pieces = (x.rows + kSumRows - 1) / kSumRows;
  float* parts = scratch(pieces, x.cols);
  team_.parallel_for(pieces, [&](std::int64_t piece, int) {
    const std::int64_t begin = piece * kSumRows;
    NormRows job = rows_of(x, weight, begin, std::min(kSumRows, x.rows - begin));
    job.rstd = rstd.as<float>() + begin;
    job.dy = dy.row<float>(begin);
    job.dy_stride = dy.stride;
    job.dx = dx.row<float>(begin);
    job.dx_stride = dx.stride;
    job.dx_t = dx_t ? dx_t.slice_rows(begin, job.rows).data : nullptr;
    job.dx_t_stride = dx_t.stride;
    job.dweight = parts + piece * x.cols;
    kernels_.norm_backward(job);
  });
  add_parts(parts, pieces, x.cols, dweight.as<float>());
}

}  // namespace foretoken::cpu
