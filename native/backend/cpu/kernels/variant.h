#pragma once

// The table of kernels of the instruction set that the including file is compiled for.

#include "backend/cpu/kernels/attention_backward.h"
#include "backend/cpu/kernels/attention_forward.h"
#include "backend/cpu/kernels/elementwise.h"
#include "backend/cpu/kernels/head.h"
#include "backend/cpu/kernels/norm.h"
#include "backend/cpu/kernels/rope.h"
#include "backend/cpu/kernels/swiglu.h"
#include "backend/cpu/kernels/update.h"

namespace foretoken::cpu {
namespace {

template <typename T>
constexpr Kernels kKernels = {
    .widen = widen<T>,
    .narrow = narrow<T>,
    .round = round<T>,
    .add = add,
    .average = average<T>,
    .exponential = exponential,
    .sum_squares = sum_squares<T>,
    .column_sums = column_sums<T>,
    .norm_forward = norm_forward<T>,
    .norm_backward = norm_backward<T>,
    .rope_forward = rope_forward<T>,
    .rope_backward = rope_backward<T>,
    .swiglu_forward = swiglu_forward<T>,
    .swiglu_backward = swiglu_backward<T>,
    .query_tile = kQueryTile,
    .rows_beyond = VectorProducts<T>::rows_beyond,
    .gradient_tile = kGradientTile,
    .attention_forward = attention_forward<T, VectorProducts<T>>,
    .attention_backward = attention_backward<T>,
    .attention_backward_add = attention_backward_add,
    .row_statistics = row_statistics,
    .top_values = top_values,
    .logprob_backward = logprob_backward<T>,
    .sampling_weights = sampling_weights,
    .chunk_sums = chunk_sums,
    .greatest = greatest_or_nan,
    .adamw = {{adamw<float, float>, adamw<float, bf16>}, {adamw<bf16, float>, adamw<bf16, bf16>}},
};

}  // namespace
}  // namespace foretoken::cpu
