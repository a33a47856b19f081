#include "backend/cpu/matmul.h"

#include <algorithm>
#include <cstdlib>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "backend/cpu/matmul_kernels.h"
#include "core/error.h"

namespace foretoken::cpu {

namespace {

constexpr std::int64_t kUnitBytes = 4;
// Tokens of a gradient that are rearranged at a time; even, so that no pair is cut.
constexpr std::int64_t kGradientTokens = 512;
// Outputs of a gradient that are rearranged at a time: bounds the workspace for large vocabularies.
constexpr std::int64_t kGradientOutputs = 4096;

// Below it, handing work to another thread takes longer than the work.
constexpr std::int64_t kStepsWorthSharing = 3000;
// A task long enough not to notice that it is handed out; many, so that a thread the system holds up delays the rest little.
constexpr std::int64_t kStepsOfATask = 30000, kTasksPerThread = 8;
// A panel that several threads load should serve so many tiles of rows on each.
constexpr std::int64_t kTilesWorthAPanel = 4;

// Packing: lines of the source that a task walks along, and how far; both even.
constexpr std::int64_t kPackLines = 64, kPackPiece = 1024;

std::int64_t round_up(std::int64_t value, std::int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }
std::int64_t divide_up(std::int64_t value, std::int64_t by) { return (value + by - 1) / by; }

const MatmulKernels& kernels_for(const Matmul& matmul, DType dtype) {
  if (dtype == DType::Float32) return matmul.float32;
  invariant(dtype == DType::BFloat16, "matrix products are of float32 or bfloat16");
  return matmul.bfloat16;
}

std::int64_t units_of(DType dtype, std::int64_t k) { return dtype == DType::BFloat16 ? divide_up(k, 2) : k; }

// Rearranges (K, N) into panels of `width` columns.
void pack_panels(ThreadTeam& team, const MatmulKernels& kernels, DType dtype, const MatrixView& source, bool transposed,
                 std::int64_t k, std::int64_t n, std::int64_t width, std::byte* into) {
  const std::int64_t panels = divide_up(n, width);
  // A task reads pieces of kPackPiece elements from kPackLines lines of the source, whichever way they lie.
  const std::int64_t k_step = transposed ? kPackPiece : kPackLines;
  const std::int64_t panel_step = std::max<std::int64_t>(1, (transposed ? kPackLines : kPackPiece) / width);
  const std::int64_t k_parts = divide_up(k, k_step), panel_parts = divide_up(panels, panel_step);
  team.parallel_for(k_parts * panel_parts, [&](std::int64_t task, int) {
    PackJob job;
    job.source = source.data;
    job.stride = source.stride;
    job.source_bfloat16 = source.dtype == DType::BFloat16;
    job.transposed = transposed;
    job.k_begin = task % k_parts * k_step;
    job.k_end = std::min(k, job.k_begin + k_step);
    job.column_begin = task / k_parts * panel_step * width;
    job.column_end = std::min(n, job.column_begin + panel_step * width);
    job.width = width;
    job.panel_bytes = units_of(dtype, k) * width * kUnitBytes;
    job.into = reinterpret_cast<char*>(into);
    kernels.pack(job);
  });
}

// Shares (rows, columns) of a product out in tasks. Which task computes an element does not touch its bits.
void multiply_in_parallel(ThreadTeam& team, const MatmulKernels& kernels, const Block& whole, std::int64_t rows, std::int64_t columns) {
  const std::int64_t threads = team.size();
  const std::int64_t tiles = divide_up(rows, kernels.tile_rows), panels = divide_up(columns, kernels.panel_columns);
  if (tiles == 0 || panels == 0) return;
  // In steps of one unit by one panel; a step of few rows waits for its panel rather than for the multipliers.
  const std::int64_t steps = std::max<std::int64_t>(whole.units, 1) * panels * std::max<std::int64_t>(rows, 3);
  std::int64_t row_parts = 1, column_parts = 1;
  if (steps >= kStepsWorthSharing) {
    // By rows, if that leaves each thread enough of them: then all have equal shares. What is left, by columns.
    row_parts = std::clamp<std::int64_t>(tiles / kTilesWorthAPanel, 1, threads);
    column_parts = divide_up(threads, row_parts) * std::clamp<std::int64_t>(steps / (threads * kStepsOfATask), 1, kTasksPerThread);
    column_parts = std::min(column_parts, panels);
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

AlignedMemory::AlignedMemory(std::size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  constexpr std::size_t kLine = 64, kHugePage = std::size_t{1} << 21;
  const std::size_t alignment = bytes >= kHugePage ? kHugePage : kLine;
  const std::size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  if (rounded >= bytes) data_.reset(static_cast<std::byte*>(std::aligned_alloc(alignment, rounded)));
  if (!data_) fail(ErrorCode::OutOfMemory, "the system refused ", bytes, " bytes for a matrix product's operand");
#ifdef __linux__
  // Panels are read from end to end: with 4 KiB pages the prefetchers stop at every 64th line.
  if (alignment == kHugePage) madvise(data_.get(), rounded, MADV_HUGEPAGE);
#endif
}

void AlignedMemory::Free::operator()(std::byte* memory) const { std::free(memory); }

const Matmul& matmul_for(Isa isa) {
  if (!isa_available(isa)) fail(ErrorCode::DeviceUnavailable, "this machine lacks the instruction set ", name_of(isa));
  switch (isa) {
#if defined(__x86_64__)
    case Isa::Avx2: return kMatmulAvx2;
    case Isa::Avx512: return kMatmulAvx512;
    case Isa::Avx512Bf16: return kMatmulAvx512Bf16;
#endif
    default: return kMatmulPortable;
  }
}

std::size_t PackedMatrix::bytes_for(const Matmul& matmul, DType dtype, std::int64_t k, std::int64_t n) {
  invariant(k >= 0 && n >= 0, "a packed matrix has no negative side");
  return static_cast<std::size_t>(units_of(dtype, k) * kUnitBytes * round_up(n, kernels_for(matmul, dtype).panel_columns));
}

PackedMatrix::PackedMatrix(const Matmul& matmul, DType dtype, std::int64_t k, std::int64_t n)
    : memory_(bytes_for(matmul, dtype, k, n)), matmul_(&matmul), dtype_(dtype), k_(k), n_(n) {}

void pack(ThreadTeam& team, PackedMatrix& into, const MatrixView& source, bool transposed) {
  if (into.bytes() == 0) return;
  const MatmulKernels& kernels = kernels_for(*into.matmul(), into.dtype());
  invariant(source.dtype == DType::Float32 || source.dtype == DType::BFloat16, "pack takes float32 or bfloat16");
  pack_panels(team, kernels, into.dtype(), source, transposed, into.k(), into.n(), kernels.panel_columns, into.data());
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
  block.bias = epilogue.bias;
  block.residual = epilogue.residual;
  block.residual_stride = epilogue.residual_stride;
  block.out = out.data;
  block.out_stride = out.stride;
  block.out_bfloat16 = out.dtype == DType::BFloat16;
  multiply_in_parallel(team, kernels, block, rows, b.n());
}

std::size_t GradientWorkspace::bytes_for(const Matmul& matmul, DType dtype, std::int64_t outputs, std::int64_t inputs) {
  const MatmulKernels& kernels = kernels_for(matmul, dtype);
  const std::int64_t columns = round_up(inputs, kernels.panel_columns) + round_up(std::min(outputs, kGradientOutputs), kernels.group_rows);
  return static_cast<std::size_t>(units_of(dtype, kGradientTokens) * kUnitBytes * columns);
}

void GradientWorkspace::reserve(std::size_t bytes) {
  if (bytes > memory_.bytes()) memory_ = AlignedMemory(bytes);
}

void multiply_gradient(ThreadTeam& team, const Matmul& matmul, GradientWorkspace& workspace, const MatrixView& dy,
                       const MatrixView& x, std::int64_t tokens, std::int64_t outputs, std::int64_t inputs, float* dw,
                       std::int64_t dw_stride) {
  if (tokens == 0 || outputs == 0 || inputs == 0) return;
  invariant(dy.dtype == x.dtype, "the operands of a gradient share a dtype");
  const MatmulKernels& kernels = kernels_for(matmul, x.dtype);
  workspace.reserve(GradientWorkspace::bytes_for(matmul, x.dtype, outputs, inputs));
  const std::int64_t element = static_cast<std::int64_t>(size_of(x.dtype));

  for (std::int64_t token = 0; token < tokens; token += kGradientTokens) {
    const std::int64_t k = std::min(kGradientTokens, tokens - token);
    const std::int64_t units = units_of(x.dtype, k);
    std::byte* const right = workspace.data();
    std::byte* const left = right + units * kUnitBytes * round_up(inputs, kernels.panel_columns);
    const MatrixView x_part(static_cast<const std::byte*>(x.data) + token * x.stride * element, x.stride, x.dtype);
    pack_panels(team, kernels, x.dtype, x_part, false, k, inputs, kernels.panel_columns, right);

    for (std::int64_t output = 0; output < outputs; output += kGradientOutputs) {
      const std::int64_t rows = std::min(kGradientOutputs, outputs - output);
      const MatrixView dy_part(static_cast<const std::byte*>(dy.data) + (token * dy.stride + output) * element, dy.stride, dy.dtype);
      pack_panels(team, kernels, dy.dtype, dy_part, false, k, rows, kernels.group_rows, left);
      Block block;
      block.a = reinterpret_cast<const char*>(left);
      block.a_row_bytes = kUnitBytes;
      block.a_unit_bytes = kernels.group_rows * kUnitBytes;
      block.a_group_rows = kernels.group_rows;
      block.a_group_bytes = units * block.a_unit_bytes;
      block.b = reinterpret_cast<const char*>(right);
      block.units = units;
      block.out = dw + output * dw_stride;
      block.out_stride = dw_stride;
      block.start = dw + output * dw_stride;
      block.start_stride = dw_stride;
      multiply_in_parallel(team, kernels, block, rows, inputs);
    }
  }
}

}  // namespace foretoken::cpu
