#include <algorithm>

#include "backend/cpu/matmul.h"
#include "backend/cpu/matmul_units.h"

namespace foretoken::cpu {

namespace {

// Tokens that are rearranged at a time; a multiple of what an instruction sums up.
constexpr std::int64_t kTokens = 512;
// What a thread holds of each operand, rearranged: inputs once for all outputs, outputs for these inputs. The latter
// stay in the second-level cache.
constexpr std::int64_t kInputBytes = 2 << 20, kOutputBytes = 512 << 10;
// Multiplications below which handing work to another thread takes longer than the work.
constexpr std::int64_t kWorthSharing = 100'000;

/// The blocks that one thread cuts its part of a gradient into.
struct Blocks {
  Blocks(const MatmulKernels& kernels, DType dtype, std::int64_t outputs, std::int64_t inputs) {
    const std::int64_t column_bytes = units_of(dtype, kTokens) * kUnitBytes;
    const auto step = [&](std::int64_t columns, std::int64_t width, std::int64_t most_bytes) {
      return std::min(round_up(columns, width), most_bytes / column_bytes / width * width);
    };
    inputs_at_once = step(inputs, kernels.panel_columns, kInputBytes);
    outputs_at_once = step(outputs, kernels.group_rows, kOutputBytes);
    input_bytes = inputs_at_once * column_bytes;
    bytes = round_up(input_bytes + outputs_at_once * column_bytes, 4096);
  }
  std::int64_t inputs_at_once, outputs_at_once, input_bytes, bytes;
};

/// Into how many parts to cut the outputs, of `parts` parts of the gradient: so that the least is rearranged.
std::int64_t parts_of_outputs(std::int64_t parts, std::int64_t outputs, std::int64_t inputs) {
  const auto rearranged = [&](std::int64_t of_outputs) { return of_outputs * inputs + parts / of_outputs * outputs; };
  std::int64_t best = 1;
  for (std::int64_t of_outputs = 2; of_outputs <= parts; ++of_outputs) {
    if (parts % of_outputs == 0 && rearranged(of_outputs) < rearranged(best)) best = of_outputs;
  }
  return best;
}

struct Range { std::int64_t begin, end; };

/// Part `index` of `parts` about equal ones of [0, count), cut at multiples of `grain`.
Range part_of(std::int64_t count, std::int64_t grain, std::int64_t index, std::int64_t parts) {
  const std::int64_t grains = divide_up(count, grain);
  return {grains * index / parts * grain, std::min(count, grains * (index + 1) / parts * grain)};
}

/// Columns of tokens' rows, rearranged by `pack` into panels of `width`.
void pack_columns(const MatmulKernels& kernels, void (*pack)(const PackJob&), const MatrixView& source, Range tokens,
                  Range columns, std::int64_t width, char* into) {
  PackJob job;
  job.source = static_cast<const char*>(source.data) +
               tokens.begin * source.stride * static_cast<std::int64_t>(size_of(source.dtype));
  job.stride = source.stride;
  job.source_bfloat16 = source.dtype == DType::BFloat16;
  job.k_end = tokens.end - tokens.begin;
  job.column_begin = columns.begin;
  job.column_end = columns.end;
  job.width = width;
  job.panel_bytes = panel_units(kernels, source.dtype, job.k_end) * width * kUnitBytes;
  job.into = into;
  pack(job);
}

}  // namespace

std::size_t GradientWorkspace::bytes_for(const Matmul& matmul, DType dtype, int threads, std::int64_t outputs,
                                         std::int64_t inputs) {
  return static_cast<std::size_t>(Blocks(kernels_for(matmul, dtype), dtype, outputs, inputs).bytes * threads);
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
  const Blocks blocks(kernels, x.dtype, outputs, inputs);
  workspace.reserve(GradientWorkspace::bytes_for(matmul, x.dtype, team.size(), outputs, inputs));

  // One part for each thread, which rearranges what it needs for itself: lines that another core wrote take longer to
  // fetch than to make.
  const std::int64_t parts = tokens * outputs * inputs < kWorthSharing ? 1 : team.size();
  const std::int64_t output_parts = parts_of_outputs(parts, outputs, inputs), input_parts = parts / output_parts;
  team.parallel_for(parts, [&](std::int64_t part, int worker) {
    const Range my_outputs = part_of(outputs, kernels.group_rows, part % output_parts, output_parts);
    const Range my_inputs = part_of(inputs, kernels.panel_columns, part / output_parts, input_parts);
    if (my_outputs.begin == my_outputs.end) return;
    char* const right = reinterpret_cast<char*>(workspace.data()) + worker * blocks.bytes;
    char* const left = right + blocks.input_bytes;
    for (std::int64_t token = 0; token < tokens; token += kTokens) {
      const Range some_tokens{token, std::min(tokens, token + kTokens)};
      for (std::int64_t input = my_inputs.begin; input < my_inputs.end; input += blocks.inputs_at_once) {
        const Range some_inputs{input, std::min(my_inputs.end, input + blocks.inputs_at_once)};
        pack_columns(kernels, kernels.pack, x, some_tokens, some_inputs, kernels.panel_columns, right);
        for (std::int64_t output = my_outputs.begin; output < my_outputs.end; output += blocks.outputs_at_once) {
          const Range some_outputs{output, std::min(my_outputs.end, output + blocks.outputs_at_once)};
          pack_columns(kernels, kernels.pack_left, dy, some_tokens, some_outputs, kernels.group_rows, left);
          Block block;
          block.units = units_of(x.dtype, some_tokens.end - some_tokens.begin);
          block.panel_units = panel_units(kernels, x.dtype, some_tokens.end - some_tokens.begin);
          block.a = left;
          block.a_row_bytes = kUnitBytes;
          block.a_unit_bytes = kernels.group_rows * kUnitBytes;
          block.a_group_rows = kernels.group_rows;
          block.a_group_bytes = block.panel_units * block.a_unit_bytes;
          block.b = right;
          block.row_end = some_outputs.end - some_outputs.begin;
          block.column_end = some_inputs.end - some_inputs.begin;
          block.start = dw + output * dw_stride + input;
          block.start_stride = dw_stride;
          block.out = dw + output * dw_stride + input;
          block.out_stride = dw_stride;
          kernels.multiply(block);
        }
      }
    }
  });
}

}  // namespace foretoken::cpu
