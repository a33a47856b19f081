// AVX-512-BF16's kernels, but for attention in bfloat16.

#include "backend/cpu/kernels/attention_backward.h"
#include "backend/cpu/kernels/attention_backward_amx.h"
#include "backend/cpu/kernels/attention_forward.h"
#include "backend/cpu/kernels/attention_products_amx.h"

namespace foretoken::cpu {
namespace {

/// Whether heads are whole vectors. Others are left to the vector kernels.
bool fits_tiles(int head_dim) { return head_dim % kLanes == 0; }

void attention_forward_amx(const AttentionTile& tile) {
  if (fits_tiles(tile.head_dim)) attention_forward<bf16, TileProducts>(tile);
  else attention_forward<bf16, VectorProducts<bf16>>(tile);
}

void attention_backward_amx(const AttentionPiece& piece) {
  if (fits_tiles(piece.head_dim)) attention_backward_tiles(piece);
  else attention_backward<bf16>(piece);
}

void attention_backward_add_amx(const AttentionPiece& piece) {
  if (fits_tiles(piece.head_dim)) attention_backward_add_tiles(piece);
  else attention_backward_add(piece);
}

Kernels with_tiles(Kernels kernels) {
  kernels.query_tile = kGreatestQueryTile;
  kernels.rows_beyond = TileProducts::rows_beyond;
  kernels.gradient_tile = kTileQueries;
  kernels.attention_forward = attention_forward_amx;
  kernels.attention_backward = attention_backward_amx;
  kernels.attention_backward_add = attention_backward_add_amx;
  return kernels;
}

}  // namespace

const Kernels& kernels_amx(bool bfloat16) {
  static const Kernels kernels = with_tiles(kernels_avx512_bf16(true));
  return bfloat16 ? kernels : kernels_avx512_bf16(false);
}

}  // namespace foretoken::cpu
