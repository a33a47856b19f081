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
// What a thread holds of each operand of a gradient, rearranged.
constexpr std::int64_t kGradientInputBytes = 2 << 20, kGradientOutputBytes = 512 << 10;
// Below it, handing work to another thread takes longer than the work.
constexpr std::int64_t kStepsWorthSharing = 4000;
// A task is long enough not to notice that it is handed out, and of panels enough for tasks to be about equal; there are
// many, so that a thread which the system holds up delays the rest little.
constexpr std::int64_t kStepsOfATask = 30000, kPanelsOfATask = 4, kTasksPerThread = 8;
// Rows of a task, which all its panels are multiplied with, stay in the last-level cache.
constexpr std::int64_t kRowBytesOfATask = 2 << 20;
// A panel that several threads load should serve so many tiles of rows on each; fewer while all panels fit into caches.
constexpr std::int64_t kTilesWorthAPanel = 4, kTilesWorthACachedPanel = 2, kCachedPanelBytes = 2 << 20;

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
    const bool cached = whole.units * kUnitBytes * columns <= kCachedPanelBytes;
    row_parts = std::clamp<std::int64_t>(tiles / (cached ? kTilesWorthACachedPanel : kTilesWorthAPanel), 1, threads);
    column_parts = divide_up(threads, row_parts);
    if (column_parts == 1) row_parts *= std::max<std::int64_t>(1, rows * whole.units * kUnitBytes / (threads * kRowBytesOfATask));
    const std::int64_t tasks = row_parts * column_parts;
    const std::int64_t finer = std::min({steps / (tasks * kStepsOfATask), panels / (column_parts * kPanelsOfATask), threads * kTasksPerThread / tasks});
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

AlignedMemory::AlignedMemory(std::size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  constexpr std::size_t kLine = 64, kHugePage = std::size_t{1} << 21;
  const std::size_t rounded = (bytes + kLine - 1) / kLine * kLine;
  if (rounded >= bytes) data_.reset(static_cast<std::byte*>(std::aligned_alloc(bytes >= kHugePage ? kHugePage : kLine, rounded)));
  if (!data_) fail(ErrorCode::OutOfMemory, "the system refused ", bytes, " bytes for the operands of matrix products");
#ifdef __linux__
  // Panels are read from end to end, and translating addresses page by page would take a good part of the time. Only
  // whole huge pages are asked for, so that no more memory is used than was planned; a refusal does no harm.
  if (bytes >= kHugePage) madvise(data_.get(), bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
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
    job.panel_bytes = units_of(into.dtype(), k) * width * kUnitBytes;
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
  block.units = block.panel_units = units_of(b.dtype(), b.k());
  block.bias = epilogue.bias;
  block.residual = epilogue.residual;
  block.residual_stride = epilogue.residual_stride;
  block.out = out.data;
  block.out_stride = out.stride;
  block.out_bfloat16 = out.dtype == DType::BFloat16;
  multiply_in_parallel(team, kernels, block, rows, b.n());
}

// How one thread goes through its part of a gradient: blocks of tokens, of inputs (rearranged once for all outputs) and
// of outputs (rearranged for these inputs), sized so that the outputs' block stays in the second-level cache.
struct GradientBlocks {
  GradientBlocks(const MatmulKernels& kernels, DType dtype, std::int64_t outputs, std::int64_t inputs) {
    const std::int64_t column_bytes = units_of(dtype, kGradientTokens) * kUnitBytes;
    input_step = std::min(round_up(inputs, kernels.panel_columns), kGradientInputBytes / column_bytes / kernels.panel_columns * kernels.panel_columns);
    output_step = std::min(round_up(outputs, kernels.group_rows), kGradientOutputBytes / column_bytes / kernels.group_rows * kernels.group_rows);
    input_bytes = input_step * column_bytes;
    bytes = round_up(input_bytes + output_step * column_bytes, 4096);
  }
  std::int64_t input_step, output_step, input_bytes, bytes;
};

std::size_t GradientWorkspace::bytes_for(const Matmul& matmul, DType dtype, int threads, std::int64_t outputs, std::int64_t inputs) {
  return static_cast<std::size_t>(GradientBlocks(kernels_for(matmul, dtype), dtype, outputs, inputs).bytes * threads);
}

void GradientWorkspace::reserve(std::size_t bytes) {
  if (bytes > memory_.bytes()) memory_ = AlignedMemory(bytes);
}

void multiply_gradient(ThreadTeam& team, const Matmul& matmul, GradientWorkspace& workspace, const MatrixView& dy,
                       const MatrixView& x, std::int64_t tokens, std::int64_t outputs, std::int64_t inputs, float* dw,
                       std::int64_t dw_stride) {
  if (tokens == 0 || outputs == 0 || inputs == 0) return;
  invariant(dy.dtype == x.dtype, "the operands of a gradient share a dtype");
  const DType dtype = x.dtype;
  const MatmulKernels& kernels = kernels_for(matmul, dtype);
  const GradientBlocks blocks(kernels, dtype, outputs, inputs);
  workspace.reserve(GradientWorkspace::bytes_for(matmul, dtype, team.size(), outputs, inputs));

  const auto pack_part = [&](const MatrixView& source, std::int64_t token, std::int64_t k, std::int64_t begin, std::int64_t end, std::int64_t width, char* into) {
    PackJob job;
    job.source = static_cast<const char*>(source.data) + token * source.stride * static_cast<std::int64_t>(size_of(dtype));
    job.stride = source.stride;
    job.source_bfloat16 = dtype == DType::BFloat16;
    job.k_end = k;
    job.column_begin = begin;
    job.column_end = end;
    job.width = width;
    job.panel_bytes = units_of(dtype, k) * width * kUnitBytes;
    job.into = into;
    kernels.pack(job);
  };

  // Each thread rearranges what it needs for itself: lines that another core wrote take longer to fetch than to make.
  // Of the ways to cut the gradient into as many parts as there are threads, the one that rearranges least.
  const std::int64_t threads = team.size();
  std::int64_t output_parts = threads;
  for (std::int64_t parts = 1; parts < threads; ++parts) {
    if (threads % parts == 0 && parts * inputs + threads / parts * outputs < output_parts * inputs + threads / output_parts * outputs) output_parts = parts;
  }
  const std::int64_t input_parts = threads / output_parts;
  const std::int64_t output_groups = divide_up(outputs, kernels.group_rows), input_panels = divide_up(inputs, kernels.panel_columns);
  team.parallel_for(threads, [&](std::int64_t part, int worker) {
    const std::int64_t output_part = part % output_parts, input_part = part / output_parts;
    const std::int64_t output_begin = output_groups * output_part / output_parts * kernels.group_rows;
    const std::int64_t output_end = std::min(outputs, output_groups * (output_part + 1) / output_parts * kernels.group_rows);
    const std::int64_t input_begin = input_panels * input_part / input_parts * kernels.panel_columns;
    const std::int64_t input_end = std::min(inputs, input_panels * (input_part + 1) / input_parts * kernels.panel_columns);
    char* const right = reinterpret_cast<char*>(workspace.data()) + worker * blocks.bytes;
    char* const left = right + blocks.input_bytes;
    for (std::int64_t token = 0; token < tokens; token += kGradientTokens) {
      const std::int64_t k = std::min(kGradientTokens, tokens - token);
      for (std::int64_t input = input_begin; input < input_end; input += blocks.input_step) {
        const std::int64_t columns = std::min(blocks.input_step, input_end - input);
        pack_part(x, token, k, input, input + columns, kernels.panel_columns, right);
        for (std::int64_t output = output_begin; output < output_end; output += blocks.output_step) {
          const std::int64_t rows = std::min(blocks.output_step, output_end - output);
          pack_part(dy, token, k, output, output + rows, kernels.group_rows, left);
          Block block;
          block.units = block.panel_units = units_of(dtype, k);
          block.a = left;
          block.a_row_bytes = kUnitBytes;
          block.a_unit_bytes = kernels.group_rows * kUnitBytes;
          block.a_group_rows = kernels.group_rows;
          block.a_group_bytes = block.units * block.a_unit_bytes;
          block.b = right;
          block.row_end = rows;
          block.column_end = columns;
          block.out = dw + output * dw_stride + input;
          block.out_stride = dw_stride;
          block.start = dw + output * dw_stride + input;
          block.start_stride = dw_stride;
          kernels.multiply(block);
        }
      }
    }
  });
}

}  // namespace foretoken::cpu
