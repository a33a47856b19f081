#pragma once

// The two products of attention_forward on AMX's tile registers, for heads of whole vectors. TDPBF16PS defines the order
// of the sums within a step: a score's steps are 32 of d (the last may be 16), an output component's are pages.
//
// Tiles have 16 rows of queries, or 8 where there are no more. What else they hold is computed as well: its scores come
// where the rows after the last one have theirs, which are computed later or not used; of outputs it is not stored.

#include "backend/cpu/amx_tile.h"
#include "backend/cpu/kernels/attention_forward.h"

namespace foretoken::cpu {
namespace {

class TileProducts {
 public:
  static constexpr int rows_beyond = kAmxRows - 1;

  TileProducts() {
    static constexpr TileShapes shapes = [] {
      TileShapes s;
      s.set(kSums, kAmxRows, kAmxRowBytes);
      s.set(kMoreSums, kAmxRows, kAmxRowBytes);
      s.set(kStep, kAmxRows, kAmxRowBytes);
      s.set(kStepOfKeys, kAmxUnits, kAmxRowBytes);
      s.set(kHalfStep, kAmxRows, kPageRowBytes);
      s.set(kPage, kPageUnits, kAmxRowBytes);
      s.set(kFewSums, kFewRows, kAmxRowBytes);
      s.set(kFewHalfStep, kFewRows, kPageRowBytes);
      return s;
    }();
    set_amx(shapes);
  }
  TileProducts(const TileProducts&) = delete;
  TileProducts& operator=(const TileProducts&) = delete;
  ~TileProducts() { release_amx(); }

  /// As `dot` of attention_tiles.h, and garbage into up to rows_beyond further rows of scores.
  FORETOKEN_INLINE void dot(const Word* q, std::int64_t q_stride, int rows, const bf16* const* keys,
                            const bf16* const* ahead, int pages, int units, float* scores,
                            std::int64_t scores_stride) const {
    for (int p = 0; p < pages; p += 2)
      for (int r = 0; r < rows; r += kAmxRows) {
        const Word* const queries = q + r * q_stride;
        float* const into = scores + r * scores_stride + p * kLanes;
        const bf16* const* const next = r == 0 ? ahead + p : nullptr;
        if (p + 1 == pages) dot_pages<1>(queries, q_stride, keys + p, next, units, into, scores_stride);
        else dot_pages<2>(queries, q_stride, keys + p, next, units, into, scores_stride);
      }
  }

  /// As `mix` of attention_tiles.h, for coefficients along rows and whole vectors of columns.
  FORETOKEN_INLINE void mix(const Mixture<bf16>& mixture, int rows, int cols, float* out, std::int64_t out_stride) const {
    const Mixed m = {(const char*)mixture.coefficients, mixture.row_stride * 4, mixture.x_stride * 4,
                     mixture.begin / kLanes, (mixture.end - 1) / kLanes + 1};
    // Of the blocks at both ends, what is not to be summed up may not even be a number.
    alignas(64) Word first[kPageUnits * kBlockColumns], last[kPageUnits * kBlockColumns];
    for (int c = 0; c < cols; c += kBlockColumns) {
      const int columns = cols - c < kBlockColumns ? cols - c : kBlockColumns;
      Block blocks[kPagesTogether];
      for (int b = m.begin; b < m.end; ++b) {
        const int from = mixture.begin - b * kLanes, to = mixture.end - b * kLanes;
        blocks[b] = {(const char*)((const Word*)mixture.x[b] + c), m.x_row_bytes, (const Word*)mixture.ahead[b] + c};
        if (from <= 0 && to >= kLanes) continue;
        Word* const copy = b == m.begin ? first : last;
        copy_part(mixture.x[b] + c * kUnit<bf16>, mixture.x_stride, columns, from, to, copy);
        blocks[b].x = (const char*)copy;
        blocks[b].row_bytes = kBlockColumns * 4;
      }
      for (int r = 0; r < rows; r += kAmxRows) {
        const int left = rows - r < kAmxRows ? rows - r : kAmxRows;
        float* const into = out + r * out_stride + c;
        if (left <= kFewRows) mix_few(m, blocks, r, left, columns, into, out_stride);
        else if (columns == kBlockColumns) mix_tiles<2>(m, blocks, r, left, into, out_stride);
        else mix_tiles<1>(m, blocks, r, left, into, out_stride);
      }
    }
  }

 private:
  enum Tiles { kSums, kMoreSums, kFewSums, kFewHalfStep, kStep, kHalfStep, kStepOfKeys, kPage };
  static constexpr int kFewRows = 8;
  static constexpr int kPageUnits = kLanes / kUnit<bf16>;
  static constexpr int kPageRowBytes = kPageUnits * 4;
  static constexpr int kBlockColumns = 2 * kAmxColumns;

  struct Block {
    const char* x;
    std::int64_t row_bytes;
    const Word* ahead;
  };
  struct Mixed {
    const char* coefficients;
    std::int64_t row_bytes, x_row_bytes;
    int begin, end;   // blocks
  };

  template <int pages>
  static FORETOKEN_INLINE void dot_pages(const Word* q, std::int64_t q_stride, const bf16* const* keys,
                                         const bf16* const* ahead, int units, float* scores, std::int64_t scores_stride) {
    const auto ask = [&](int u, int count) __attribute__((always_inline)) {
      if (ahead == nullptr) return;
      for (int p = 0; p < pages; ++p) prefetch((const Word*)ahead[p] + u * kLanes, count * kLanes);
    };
    zero_amx<kSums>();
    if constexpr (pages > 1) zero_amx<kMoreSums>();
    int u = 0;
    for (; u + kAmxUnits <= units; u += kAmxUnits) {
      load_amx<kStep>(q + u, q_stride * 4);
      load_amx<kStepOfKeys>((const Word*)keys[0] + u * kLanes, kAmxRowBytes);
      multiply_amx<kSums, kStep, kStepOfKeys>();
      if constexpr (pages > 1) {
        load_amx<kStepOfKeys>((const Word*)keys[1] + u * kLanes, kAmxRowBytes);
        multiply_amx<kMoreSums, kStep, kStepOfKeys>();
      }
      ask(u, kAmxUnits);
    }
    if (u < units) {
      load_amx<kHalfStep>(q + u, q_stride * 4);
      load_amx<kPage>((const Word*)keys[0] + u * kLanes, kAmxRowBytes);
      multiply_amx<kSums, kHalfStep, kPage>();
      if constexpr (pages > 1) {
        load_amx<kPage>((const Word*)keys[1] + u * kLanes, kAmxRowBytes);
        multiply_amx<kMoreSums, kHalfStep, kPage>();
      }
      ask(u, kPageUnits);
    }
    store_amx<kSums>(scores, scores_stride * 4);
    if constexpr (pages > 1) store_amx<kMoreSums>(scores + kLanes, scores_stride * 4);
  }

  /// The numbers from … to − 1 of a block of 16, zeros for the others.
  static FORETOKEN_INLINE void copy_part(const bf16* x, std::int64_t x_stride, int columns, int from, int to, Word* copy) {
    for (int u = 0; u < kPageUnits; ++u) {
      const int number = u * kUnit<bf16>;
      const Word keep = (number >= from && number < to ? 0xffffu : 0u) |
                        (number + 1 >= from && number + 1 < to ? 0xffff0000u : 0u);
      for (int c = 0; c < columns; c += kLanes) {
        Units value = load_units(x + (u * x_stride + c) * kUnit<bf16>);
        value.p[0] &= keep - WordPart{};
        store_units(copy + u * kBlockColumns + c, value);
      }
    }
  }

  /// The first rows ask for what comes next.
  static FORETOKEN_INLINE void ask(const Mixed& m, const Block& block, int row, int columns) {
    if (row > 0) return;
    for (int u = 0; u < kPageUnits; ++u) prefetch(block.ahead + u * (m.x_row_bytes / 4), columns);
  }

  static FORETOKEN_INLINE void copy_rows(const float* from, int rows, int columns, float* to, std::int64_t stride) {
    for (int r = 0; r < rows; ++r)
      for (int c = 0; c < columns; c += kLanes) store(to + r * stride + c, load(from + r * columns + c));
  }

  template <int column_tiles>
  static FORETOKEN_INLINE void mix_tiles(const Mixed& m, const Block* blocks, int row, int rows, float* out,
                                         std::int64_t out_stride) {
    load_amx<kSums>(out, out_stride * 4);
    if constexpr (column_tiles > 1) load_amx<kMoreSums>(out + kAmxColumns, out_stride * 4);
    for (int b = m.begin; b < m.end; ++b) {
      load_amx<kHalfStep>(m.coefficients + row * m.row_bytes + b * kPageRowBytes, m.row_bytes);
      load_amx<kPage>(blocks[b].x, blocks[b].row_bytes);
      multiply_amx<kSums, kHalfStep, kPage>();
      if constexpr (column_tiles > 1) {
        load_amx<kPage>(blocks[b].x + kAmxRowBytes, blocks[b].row_bytes);
        multiply_amx<kMoreSums, kHalfStep, kPage>();
      }
      ask(m, blocks[b], row, column_tiles * kAmxColumns);
    }
    if (rows == kAmxRows) {
      store_amx<kSums>(out, out_stride * 4);
      if constexpr (column_tiles > 1) store_amx<kMoreSums>(out + kAmxColumns, out_stride * 4);
      return;
    }
    constexpr int columns = column_tiles * kAmxColumns;
    alignas(64) float sums[kAmxRows * columns];
    store_amx<kSums>(sums, columns * 4);
    if constexpr (column_tiles > 1) store_amx<kMoreSums>(sums + kAmxColumns, columns * 4);
    copy_rows(sums, rows, columns, out, out_stride);
  }

  static FORETOKEN_INLINE void mix_few(const Mixed& m, const Block* blocks, int row, int rows, int columns, float* out,
                                       std::int64_t out_stride) {
    for (int c = 0; c < columns; c += kAmxColumns) {
      load_amx<kFewSums>(out + c, out_stride * 4);
      for (int b = m.begin; b < m.end; ++b) {
        load_amx<kFewHalfStep>(m.coefficients + row * m.row_bytes + b * kPageRowBytes, m.row_bytes);
        load_amx<kPage>(blocks[b].x + c * 4, blocks[b].row_bytes);
        multiply_amx<kFewSums, kFewHalfStep, kPage>();
        if (c == 0) ask(m, blocks[b], row, columns);
      }
      alignas(64) float sums[kFewRows * kAmxColumns];
      store_amx<kFewSums>(sums, kAmxRowBytes);
      copy_rows(sums, rows, kAmxColumns, out + c, out_stride);
    }
  }
};

}  // namespace
}  // namespace foretoken::cpu
