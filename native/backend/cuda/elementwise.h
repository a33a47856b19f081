#pragma once

#include "backend/cuda/device/launch.h"

// How operations that treat every element alike share their matrix among threads: a thread takes chunks of eight
// elements, those of neighbouring threads being neighbours in a row.
namespace foretoken::cuda {

/// A matrix's chunks, counted row after row.
struct Chunks {
  std::int64_t rows, cols;
  std::int64_t per_row;

  /// Chunks of a matrix; one whose every operand is contiguous counts as a single row.
  static Chunks of(std::int64_t rows, std::int64_t cols, bool contiguous) {
    if (contiguous) { cols *= rows; rows = cols > 0 ? 1 : 0; }
    return {rows, cols, (cols + kChunk - 1) / kChunk};
  }
  std::int64_t count() const { return rows * per_row; }
  Grid grid() const {
    const int threads = threads_for(count());
    return {std::min<std::int64_t>((count() + threads - 1) / threads, 1 << 20), threads};
  }
};

/// In a kernel: calls body(row, first column, columns that exist) for each of the thread's chunks.
template <typename Body>
FORETOKEN_DEVICE void for_chunks(const Chunks& chunks, const Body& body) {
  const std::int64_t count = chunks.rows * chunks.per_row;
  for (std::int64_t i = global_index(); i < count; i += global_threads()) {
    std::int64_t row = 0, chunk = i;
    if (chunks.rows > 1) {
      // Division of 32-bit numbers is several times as fast.
      if (count <= 0xffffffff) row = static_cast<std::uint32_t>(i) / static_cast<std::uint32_t>(chunks.per_row);
      else row = i / chunks.per_row;
      chunk = i - row * chunks.per_row;
    }
    body(row, chunk * kChunk, min_of<std::int64_t>(kChunk, chunks.cols - chunk * kChunk));
  }
}

}  // namespace foretoken::cuda
