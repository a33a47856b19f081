#pragma once

// The tile registers of AMX: eight of up to 16 rows of up to 64 bytes. Their shapes are a setting of the thread; their
// numbers are part of the instruction, hence template arguments.
//
// The compiler knows nothing of what these instructions read and write, so each says that it touches memory. What
// includes this is compiled for an instruction set that the machine may lack: see matmul_tile.h and kernels/vec.h.

#include <stdint.h>

#define FORETOKEN_INLINE inline __attribute__((always_inline))

namespace foretoken::cpu {
namespace {

constexpr int kAmxRows = 16, kAmxColumns = 16, kAmxUnits = 16;   // of a tile: rows, float32 sums of a row, units of K
constexpr int64_t kAmxRowBytes = 64;

template <int tile>
FORETOKEN_INLINE void zero_amx() { asm volatile("tilezero %%tmm%c0" ::"i"(tile)); }

template <int tile>
FORETOKEN_INLINE void load_amx(const void* from, int64_t stride_bytes) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride_bytes), "i"(tile) : "memory");
}

/// The same of what is not loaded again soon: it leaves the first-level cache to others.
template <int tile>
FORETOKEN_INLINE void load_amx_once(const void* from, int64_t stride_bytes) {
  asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride_bytes), "i"(tile) : "memory");
}

template <int tile>
FORETOKEN_INLINE void store_amx(void* to, int64_t stride_bytes) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride_bytes), "i"(tile) : "memory");
}

/// sums[r][c] += Σ_u left[r][u] · right[u][c] over pairs of bfloat16: first halves, second halves, each in order, then both.
template <int sums, int left, int right>
FORETOKEN_INLINE void multiply_amx() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sums), "i"(left), "i"(right));
}

/// The shapes of all tiles, as the processor reads them.
struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  constexpr void set(int tile, int tile_rows, int64_t bytes) {
    rows[tile] = static_cast<uint8_t>(tile_rows);
    row_bytes[tile] = static_cast<uint16_t>(bytes);
  }
};
static_assert(sizeof(TileShapes) == 64);

/// From now on the tiles have these shapes, and zeros.
FORETOKEN_INLINE void set_amx(const TileShapes& shapes) { asm volatile("ldtilecfg %0" ::"m"(shapes) : "memory"); }

FORETOKEN_INLINE void release_amx() { asm volatile("tilerelease"); }

}  // namespace
}  // namespace foretoken::cpu
