#pragma once

#include "backend/cuda/device/launch.h"

namespace foretoken::cuda {

/// Sums over rows, such as weight gradients of norms, go over pieces of so many rows in order, and then over the pieces
/// in an order of their number alone (CudaBackend::add_parts): how many blocks are at work never shows.
inline constexpr std::int64_t kSumRows = 32;

/// Elements of a row that a block of sum_squares adds up.
inline constexpr std::int64_t kSquaresPiece = 8192;

inline std::int64_t pieces_of(std::int64_t rows) { return (rows + kSumRows - 1) / kSumRows; }

}  // namespace foretoken::cuda
