#include <algorithm>
#include <vector>

#include "backend/cpu/matmul.h"
#include "backend/cpu/matmul_units.h"

namespace foretoken::cpu {

namespace {

// Of the gradient's two sides, outputs and inputs, every thread rearranges the smaller one for itself: lines that another
// core wrote take longer to fetch than to make. The larger side is cut into tasks, which threads take as they come.
//
// Tokens that are rearranged at a time; a multiple of what an instruction sums up.
constexpr std::int64_t kTokens = 512;
// What a thread holds of each side, rearranged. A task's part stays in the second-level cache.
constexpr std::int64_t kOwnBytes = 2 << 20, kTaskBytes = 512 << 10;
// A task has so many columns of its side, unless there are more than so many tasks for each thread.
constexpr std::int64_t kColumnsOfATask = 64, kTasksPerThread = 8;
// More threads than these cut the smaller side, too, and have one task each.
constexpr std::int64_t kThreadsWithAWholeSide = 8;
// Multiplications below which handing work to another thread takes longer than the work.
constexpr std::int64_t kWorthSharing = 100'000;

/// Outputs (rows of the gradient, the left operand) or inputs (its columns).
struct Side {
  const MatrixView& source;
  std::int64_t columns, width;   // width of a group or panel
  void (*pack)(const PackJob&);
};

/// Columns of a side that are held at a time.
std::int64_t columns_at_once(const MatmulKernels& kernels, DType dtype, std::int64_t columns, std::int64_t width,
                             std::int64_t most_bytes) {
  const std::int64_t column_bytes = panel_units(kernels, dtype, kTokens) * kUnitBytes;
  return std::min(round_up(columns, width), most_bytes / column_bytes / width * width);
}

/// What one thread holds: first of the smaller side, then of its task.
struct Buffers {
  Buffers(const MatmulKernels& kernels, DType dtype, std::int64_t outputs, std::int64_t inputs) {
    tasks_are_outputs = outputs >= inputs;
    const auto at_once = [&](bool of_outputs, std::int64_t bytes) {
      return columns_at_once(kernels, dtype, of_outputs ? outputs : inputs,
                             of_outputs ? kernels.group_rows : kernels.panel_columns, bytes);
    };
    own_columns = at_once(!tasks_are_outputs, kOwnBytes);
    task_columns = at_once(tasks_are_outputs, kTaskBytes);
    const std::int64_t column_bytes = panel_units(kernels, dtype, kTokens) * kUnitBytes;
    own_bytes = own_columns * column_bytes;
    bytes = round_up(own_bytes + task_columns * column_bytes, 4096);
  }
  bool tasks_are_outputs;
  std::int64_t own_columns, task_columns, own_bytes, bytes;
};

/// Into how many parts to cut the side of the tasks, of `parts` parts of the gradient: so that the least is rearranged.
std::int64_t parts_of_tasks(std::int64_t parts, std::int64_t task_side, std::int64_t own_side) {
  const auto rearranged = [&](std::int64_t of_tasks) { return of_tasks * own_side + parts / of_tasks * task_side; };
  std::int64_t best = 1;
  for (std::int64_t of_tasks = 2; of_tasks <= parts; ++of_tasks) {
    if (parts % of_tasks == 0 && rearranged(of_tasks) < rearranged(best)) best = of_tasks;
  }
  return best;
}

struct Range { std::int64_t begin, end; };

/// Part `index` of `parts` about equal ones of [0, count), cut at multiples of `grain`.
Range part_of(std::int64_t count, std::int64_t grain, std::int64_t index, std::int64_t parts) {
  const std::int64_t grains = divide_up(count, grain);
  return {grains * index / parts * grain, std::min(count, grains * (index + 1) / parts * grain)};
}

/// Columns of tokens' rows, rearranged.
void pack_columns(const MatmulKernels& kernels, const Side& side, Range tokens, Range columns, char* into) {
  PackJob job;
  job.source = static_cast<const char*>(side.source.data) +
               tokens.begin * side.source.stride * static_cast<std::int64_t>(size_of(side.source.dtype));
  job.stride = side.source.stride;
  job.source_bfloat16 = side.source.dtype == DType::BFloat16;
  job.k_end = tokens.end - tokens.begin;
  job.column_begin = columns.begin;
  job.column_end = columns.end;
  job.width = side.width;
  job.panel_bytes = panel_units(kernels, side.source.dtype, job.k_end) * side.width * kUnitBytes;
  job.into = into;
  side.pack(job);
}

}  // namespace

std::size_t GradientWorkspace::bytes_for(const Matmul& matmul, DType dtype, int threads, std::int64_t outputs,
                                         std::int64_t inputs) {
  return static_cast<std::size_t>(Buffers(kernels_for(matmul, dtype), dtype, outputs, inputs).bytes * threads);
}

void GradientWorkspace::reserve(std::size_t bytes) {
  if (bytes <= memory_.bytes()) return;
  memory_ = AlignedMemory();   // not both at a time
  memory_ = AlignedMemory(bytes);
}

std::int64_t tokens_of_a_step(const Matmul& matmul, DType dtype) {
  return kernels_for(matmul, dtype).step_units * (dtype == DType::BFloat16 ? 2 : 1);
}

void multiply_gradient(ThreadTeam& team, const Matmul& matmul, GradientWorkspace& workspace, const MatrixView& dy,
                       const MatrixView& x, std::int64_t tokens, std::int64_t outputs, std::int64_t inputs, float* dw,
                       std::int64_t dw_stride) {
  if (tokens == 0 || outputs == 0 || inputs == 0) return;
  invariant(dy.dtype == x.dtype, "the operands of a gradient share a dtype");
  const MatmulKernels& kernels = kernels_for(matmul, x.dtype);
  const Buffers buffers(kernels, x.dtype, outputs, inputs);
  workspace.reserve(GradientWorkspace::bytes_for(matmul, x.dtype, team.size(), outputs, inputs));
  const Side left{dy, outputs, kernels.group_rows, kernels.pack_left};
  const Side right{x, inputs, kernels.panel_columns, kernels.pack};
  const Side& own = buffers.tasks_are_outputs ? right : left;
  const Side& other = buffers.tasks_are_outputs ? left : right;

  // Parts of the own side by tasks of the other one.
  std::int64_t parts = 1, tasks = 1;
  if (tokens * outputs * inputs >= kWorthSharing && team.size() > 1) {
    if (team.size() <= kThreadsWithAWholeSide) {
      tasks = std::min(divide_up(other.columns, kColumnsOfATask), kTasksPerThread * team.size());
    } else {
      tasks = parts_of_tasks(team.size(), other.columns, own.columns);
      parts = team.size() / tasks;
    }
  }
  const std::int64_t own_most = divide_up(divide_up(own.columns, own.width), parts) * own.width;
  std::vector<std::int64_t> held(static_cast<std::size_t>(team.size()), -1);   // what each thread holds of the own side
  for (std::int64_t token = 0; token < tokens; token += kTokens) {
    const Range some_tokens{token, std::min(tokens, token + kTokens)};
    for (std::int64_t first = 0; first < own_most; first += buffers.own_columns) {
      team.parallel_for(parts * tasks, [&](std::int64_t index, int worker) {
        const std::int64_t part = index % parts;
        Range some_own = part_of(own.columns, own.width, part, parts);
        some_own = {std::min(some_own.begin + first, some_own.end),
                    std::min(some_own.begin + first + buffers.own_columns, some_own.end)};
        const Range task = part_of(other.columns, other.width, index / parts, tasks);
        if (some_own.begin == some_own.end || task.begin == task.end) return;
        char* const own_memory = reinterpret_cast<char*>(workspace.data()) + worker * buffers.bytes;
        char* const task_memory = own_memory + buffers.own_bytes;
        const std::int64_t holds = (token * own_most + first) * parts + part;
        if (held[static_cast<std::size_t>(worker)] != holds) {
          pack_columns(kernels, own, some_tokens, some_own, own_memory);
          held[static_cast<std::size_t>(worker)] = holds;
        }
        for (std::int64_t at = task.begin; at < task.end; at += buffers.task_columns) {
          const Range some_task{at, std::min(task.end, at + buffers.task_columns)};
          pack_columns(kernels, other, some_tokens, some_task, task_memory);
          const Range rows = buffers.tasks_are_outputs ? some_task : some_own;
          const Range columns = buffers.tasks_are_outputs ? some_own : some_task;
          Block block;
          block.units = units_of(x.dtype, some_tokens.end - some_tokens.begin);
          block.panel_units = panel_units(kernels, x.dtype, some_tokens.end - some_tokens.begin);
          block.a = buffers.tasks_are_outputs ? task_memory : own_memory;
          block.a_row_bytes = kUnitBytes;
          block.a_unit_bytes = kernels.group_rows * kUnitBytes;
          block.a_group_rows = kernels.group_rows;
          block.a_group_bytes = block.panel_units * block.a_unit_bytes;
          block.b = buffers.tasks_are_outputs ? own_memory : task_memory;
          block.row_end = rows.end - rows.begin;
          block.column_end = columns.end - columns.begin;
          block.start = dw + rows.begin * dw_stride + columns.begin;
          block.start_stride = dw_stride;
          block.out = dw + rows.begin * dw_stride + columns.begin;
          block.out_stride = dw_stride;
          kernels.multiply(block);
        }
      });
    }
  }
}

}  // namespace foretoken::cpu
