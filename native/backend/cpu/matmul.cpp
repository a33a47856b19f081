#include "backend/cpu/matmul.h"

#include <algorithm>

#include "backend/cpu/matmul_units.h"
#include "core/error.h"

namespace foretoken::cpu {

namespace {

// Work is counted in bytes of panels, again for every `share_rows` rows. Below it, handing work to another thread takes
// longer than the work.
constexpr std::int64_t kWorkWorthSharing = 256'000;
// A task is long enough not to notice that it is handed out, and of panels enough for tasks to be about equal; there
// are many, so that a thread which the system holds up delays the rest little.
constexpr std::int64_t kWorkOfATask = 1'920'000, kPanelsOfATask = 4, kTasksPerThread = 8;
// Rows of a task, which all its panels are multiplied with, stay in the last-level cache.
constexpr std::int64_t kRowBytesOfATask = 2 << 20;
// A panel that several threads load should serve so many tiles of rows on each; fewer while all panels are cached.
constexpr std::int64_t kTilesWorthAPanel = 4, kTilesWorthACachedPanel = 2, kCachedPanelBytes = 2 << 20;

// Packing: lines of the source that a task walks along, and how far; both even.
constexpr std::int64_t kPackLines = 64, kPackPiece = 1024;

// Shares (rows, columns) of a product out in tasks. Which task computes an element does not touch its bits.
void multiply_in_parallel(ThreadTeam& team, const MatmulKernels& kernels, const Block& whole, std::int64_t rows,
                          std::int64_t columns) {
  const std::int64_t threads = team.size();
  const std::int64_t tiles = divide_up(rows, kernels.tile_rows), panels = divide_up(columns, kernels.panel_columns);
  if (tiles == 0 || panels == 0) return;
  const std::int64_t panel_bytes = std::max<std::int64_t>(whole.units, 1) * kUnitBytes * kernels.panel_columns;
  const std::int64_t work = panel_bytes * panels * std::max<std::int64_t>(rows, kernels.share_rows) / kernels.share_rows;
  std::int64_t row_parts = 1, column_parts = 1;
  if (work >= kWorkWorthSharing) {
    // By rows, if that leaves each thread enough of them: then all have equal shares. What is left, by columns.
    const bool cached = whole.units * kUnitBytes * columns <= kCachedPanelBytes;
    row_parts = std::clamp<std::int64_t>(tiles / (cached ? kTilesWorthACachedPanel : kTilesWorthAPanel), 1, threads);
    column_parts = divide_up(threads, row_parts);
    if (column_parts == 1) {
      const std::int64_t row_bytes = rows * whole.units * kUnitBytes / threads;
      row_parts *= std::max<std::int64_t>(row_bytes / kRowBytesOfATask, 1);
    }
    const std::int64_t tasks = row_parts * column_parts;
    const std::int64_t finer = std::min({work / (tasks * kWorkOfATask), panels / (column_parts * kPanelsOfATask),
                                         threads * kTasksPerThread / tasks});
    column_parts = std::min(column_parts * std::max<std::int64_t>(finer, 1), panels);
  }
  team.parallel_for(row_parts * column_parts, [&](std::int64_t task, int) {
    const std::int64_t row_part = task % row_parts, column_part = task / row_parts;
    Block block = whole;
    block.row_begin = tiles * row_part / row_parts * kernels.tile_rows;
    block.row_end = std::min(rows, tiles * (row_part + 1) / row_parts * kernels.tile_rows);
    block.column_begin = panels * column_part / column_parts * kernels.panel_columns;
    block.column_end = std::min(columns, panels * (column_part + 1) / column_parts * kernels.panel_columns);
    kernels.multiply(block);
  });
}

}  // namespace

const Matmul& matmul_for(Isa isa) {
  if (!isa_available(isa)) fail(ErrorCode::DeviceUnavailable, "this machine lacks the instruction set ", name_of(isa));
  switch (isa) {
#if defined(__x86_64__)
    case Isa::Avx2: return kMatmulAvx2;
    case Isa::Avx512: return kMatmulAvx512;
    case Isa::Avx512Bf16: return kMatmulAvx512Bf16;
    case Isa::Amx: return kMatmulAmx;
#endif
    default: return kMatmulPortable;
  }
}

std::size_t PackedMatrix::bytes_for(const Matmul& matmul, DType dtype, std::int64_t k, std::int64_t n) {
  invariant(k >= 0 && n >= 0, "a packed matrix has no negative side");
  const MatmulKernels& kernels = kernels_for(matmul, dtype);
  return static_cast<std::size_t>(panel_units(kernels, dtype, k) * kUnitBytes * round_up(n, kernels.panel_columns));
}

PackedMatrix::PackedMatrix(const Matmul& matmul, DType dtype, std::int64_t k, std::int64_t n)
    : owned_(bytes_for(matmul, dtype, k, n)), data_(owned_.data()), matmul_(&matmul), dtype_(dtype), k_(k), n_(n) {}

PackedMatrix::PackedMatrix(const Matmul& matmul, DType dtype, std::int64_t k, std::int64_t n, std::byte* memory)
    : data_(memory), matmul_(&matmul), dtype_(dtype), k_(k), n_(n) {
  invariant(reinterpret_cast<std::uintptr_t>(memory) % 64 == 0, "the memory of a packed matrix starts on a cache line");
}

void pack(ThreadTeam& team, PackedMatrix& into, const MatrixView& source, bool transposed) {
  if (into.k() == 0 || into.n() == 0) return;
  invariant(source.dtype == DType::Float32 || source.dtype == DType::BFloat16, "pack takes float32 or bfloat16");
  const MatmulKernels& kernels = kernels_for(*into.matmul(), into.dtype());
  const std::int64_t k = into.k(), width = kernels.panel_columns;
  // A task reads pieces of kPackPiece elements from kPackLines lines of the source, whichever way they lie.
  const std::int64_t k_step = transposed ? kPackPiece : kPackLines;
  const std::int64_t column_step = std::max<std::int64_t>(1, (transposed ? kPackLines : kPackPiece) / width) * width;
  const std::int64_t k_parts = divide_up(k, k_step), column_parts = divide_up(into.n(), column_step);
  team.parallel_for(k_parts * column_parts, [&](std::int64_t task, int) {
    PackJob job;
    job.source = source.data;
    job.stride = source.stride;
    job.source_bfloat16 = source.dtype == DType::BFloat16;
    job.transposed = transposed;
    job.k_begin = task % k_parts * k_step;
    job.k_end = std::min(k, job.k_begin + k_step);
    job.column_begin = task / k_parts * column_step;
    job.column_end = std::min(into.n(), job.column_begin + column_step);
    job.width = width;
    job.panel_bytes = panel_units(kernels, into.dtype(), k) * width * kUnitBytes;
    job.into = reinterpret_cast<char*>(into.data()) + job.column_begin / width * job.panel_bytes;
    kernels.pack(job);
  });
}

void multiply(ThreadTeam& team, const MatrixView& a, std::int64_t rows, const PackedMatrix& b, const Epilogue& epilogue,
              const MutableMatrixView& out) {
  if (rows == 0 || b.n() == 0) return;
  invariant(b.matmul() != nullptr && a.dtype == b.dtype(), "the operands of a matrix product share a dtype");
  invariant(out.dtype == DType::Float32 || out.dtype == DType::BFloat16, "a matrix product gives float32 or bfloat16");
  const MatmulKernels& kernels = kernels_for(*b.matmul(), b.dtype());
  Block block;
  block.a = static_cast<const char*>(a.data);
  block.a_row_bytes = a.stride * static_cast<std::int64_t>(size_of(a.dtype));
  block.a_half_unit = a.dtype == DType::BFloat16 && b.k() % 2 != 0;
  block.b = reinterpret_cast<const char*>(b.data());
  block.units = units_of(b.dtype(), b.k());
  block.panel_units = panel_units(kernels, b.dtype(), b.k());
  block.bias = epilogue.bias;
  block.residual = epilogue.residual;
  block.residual_stride = epilogue.residual_stride;
  block.out = out.data;
  block.out_stride = out.stride;
  block.out_bfloat16 = out.dtype == DType::BFloat16;
  multiply_in_parallel(team, kernels, block, rows, b.n());
}

}  // namespace foretoken::cpu
