#pragma once

// The tile registers of AMX: eight of 16 rows by 64 bytes. Which rows count is a setting of the thread, which `TileRows`
// makes and clears; tile numbers are part of the instruction, hence template arguments.
//
// The compiler knows nothing of what these instructions read and write, so each says that it touches memory.

#include <stdint.h>

#include "backend/cpu/matmul_tile.h"

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

template <int tile>
FORETOKEN_INLINE void store_amx(void* to, int64_t stride_bytes) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride_bytes), "i"(tile) : "memory");
}

/// sums[r][c] += Σ_u left[r][u] · right[u][c] over pairs of bfloat16: first halves, second halves, each in order, then both.
template <int sums, int left, int right>
FORETOKEN_INLINE void multiply_amx() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sums), "i"(left), "i"(right));
}

/// How many rows the tiles have on this thread: 0 to 3 (sums) and 4, 5 (left operands) as given, 6, 7 all (right ones).
class TileRows {
 public:
  ~TileRows() {
    if (first_ != 0) asm volatile("tilerelease");
  }

  /// Of the first row of tiles and of the second (sums 2, 3 and left 5), or of all tiles of sums where that is 0. All
  /// tiles become zero if something changes.
  FORETOKEN_INLINE void set(int first, int second) {
    if (first == first_ && second == second_) return;
    first_ = first;
    second_ = second;
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    static_assert(sizeof config == 64);
    const int of_second = second == 0 ? first : second;
    const int rows[8] = {first, first, of_second, of_second, first, of_second, kAmxRows, kAmxRows};
    for (int tile = 0; tile < 8; ++tile) {
      config.rows[tile] = static_cast<uint8_t>(rows[tile]);
      config.row_bytes[tile] = kAmxRowBytes;
    }
    asm volatile("ldtilecfg %0" ::"m"(config) : "memory");
  }

 private:
  int first_ = 0, second_ = 0;
};

}  // namespace
}  // namespace foretoken::cpu
