#pragma once

#include "backend/cpu/amx_tile.h"
#include "backend/cpu/kernels/attention_tiles.h"
#include "backend/cpu/transpose.h"

// attention_backward.h on AMX's tile registers, for heads of whole vectors. Sums go in steps of 32: scores and dout · v
// over d, dq over positions (a step begins at a multiple of 32), dk and dv over rows times query heads. A product's left
// operand has its units along a row, its right one a row for each unit: so that both come of what is at hand, dk and dv
// are computed on their sides, from q and dout on theirs.

namespace foretoken::cpu {
namespace {

constexpr int kTileQueries = 96;     // rows times query heads at a time
constexpr int kStep = 2 * kLanes;    // numbers that one instruction sums over
constexpr int kStepPages = 4, kStepPositions = kStepPages * kLanes;   // of a path, at a time

constexpr std::int64_t whole_steps(std::int64_t count) { return (count + kStep - 1) / kStep * kStep; }

/// Where the path's share begins.
FORETOKEN_INLINE std::int32_t tiles_base(const AttentionPiece& piece) {
  return first_visible(piece.run.position, piece.window) / kStep * kStep;
}
FORETOKEN_INLINE std::int64_t tiles_positions(const AttentionPiece& piece) {
  return whole_steps(piece.run.position + piece.run.count) - tiles_base(piece);
}

/// The setting for products of up to two by two tiles: sums 0 to 3, left operands 4 and 5, right ones 6 and 7.
class SquareTiles {
 public:
  SquareTiles() {
    static constexpr TileShapes shapes = [] {
      TileShapes s;
      for (int tile = 0; tile < 8; ++tile) s.set(tile, kAmxRows, kAmxRowBytes);
      return s;
    }();
    set_amx(shapes);
  }
  SquareTiles(const SquareTiles&) = delete;
  SquareTiles& operator=(const SquareTiles&) = delete;
  ~SquareTiles() { release_amx(); }
};

/// How tiles lie in memory: bytes from row to row, from tile to tile, and from step to step of a sum.
struct TileMemory {
  const char* at;
  std::int64_t row, tile, step;
};

template <int I, int J, bool from_zero>
__attribute__((noinline)) void multiply_square(const char* left, const TileMemory& lefts, const char* right,
                                               const TileMemory& rights, int steps, char* sums, std::int64_t row,
                                               std::int64_t to_i, std::int64_t to_j) {
  if constexpr (from_zero) {
    zero_amx<0>();
    if constexpr (J > 1) zero_amx<1>();
    if constexpr (I > 1) zero_amx<2>();
    if constexpr (I > 1 && J > 1) zero_amx<3>();
  } else {
    load_amx<0>(sums, row);
    if constexpr (J > 1) load_amx<1>(sums + to_j, row);
    if constexpr (I > 1) load_amx<2>(sums + to_i, row);
    if constexpr (I > 1 && J > 1) load_amx<3>(sums + to_i + to_j, row);
  }
  for (int s = 0; s < steps; ++s) {
    load_amx<4>(left, lefts.row);
    load_amx<6>(right, rights.row);
    multiply_amx<0, 4, 6>();
    if constexpr (J > 1) {
      load_amx<7>(right + rights.tile, rights.row);
      multiply_amx<1, 4, 7>();
    }
    if constexpr (I > 1) {
      load_amx<5>(left + lefts.tile, lefts.row);
      multiply_amx<2, 5, 6>();
      if constexpr (J > 1) multiply_amx<3, 5, 7>();
    }
    left += lefts.step;
    right += rights.step;
  }
  store_amx<0>(sums, row);
  if constexpr (J > 1) store_amx<1>(sums + to_j, row);
  if constexpr (I > 1) store_amx<2>(sums + to_i, row);
  if constexpr (I > 1 && J > 1) store_amx<3>(sums + to_i + to_j, row);
}

/// sums (+)= left · right for I by J tiles; the tile (i, j) of sums lies i · to_i + j · to_j bytes on.
template <bool from_zero>
FORETOKEN_INLINE void multiply_tiles(const TileMemory& left, const TileMemory& right, int I, int J, int steps,
                                     float* sums, std::int64_t row, std::int64_t to_i, std::int64_t to_j) {
  for (int i = 0; i < I; i += 2)
    for (int j = 0; j < J; j += 2) {
      const char *l = left.at + i * left.tile, *r = right.at + j * right.tile;
      char* const into = (char*)sums + i * to_i + j * to_j;
      if (I - i == 1)
        J - j == 1 ? multiply_square<1, 1, from_zero>(l, left, r, right, steps, into, row, to_i, to_j)
                   : multiply_square<1, 2, from_zero>(l, left, r, right, steps, into, row, to_i, to_j);
      else
        J - j == 1 ? multiply_square<2, 1, from_zero>(l, left, r, right, steps, into, row, to_i, to_j)
                   : multiply_square<2, 2, from_zero>(l, left, r, right, steps, into, row, to_i, to_j);
    }
}

/// Units d … d + 31 of a row of D, zeros beyond it or where there is none.
FORETOKEN_INLINE WordPart row_units(const bf16* row, int d, int D) {
  if (row == nullptr || d >= D) return WordPart{};
  return load_units(row + d, Part{D - d >= kStep ? kLanes : (D - d) / kUnit<bf16>}).p[0];
}

/// first[0], second[0], first[1], second[1], … of 32 numbers: those from `begin` on, 0 or 16.
template <int begin>
FORETOKEN_INLINE WordPart in_pairs(WordPart first, WordPart second) {
  constexpr auto pair = [](int i) { return (std::uint32_t)(begin + i) | (std::uint32_t)(32 + begin + i) << 16; };
  const WordPart order = {pair(0), pair(1), pair(2),  pair(3),  pair(4),  pair(5),  pair(6),  pair(7),
                          pair(8), pair(9), pair(10), pair(11), pair(12), pair(13), pair(14), pair(15)};
  return (WordPart)_mm512_permutex2var_epi16((__m512i)first, (__m512i)order, (__m512i)second);
}

FORETOKEN_INLINE void store_words(void* to, WordPart words) { store_units(to, Units{{words}}); }

/// Keys and values along the path from tiles_base on, zeros after its end; Ds = whole_steps(D).
struct TilePath {
  bf16* keys_transposed;    // (pages, Ds / 2, 16) units along d
  bf16* values_transposed;  // (pages, Ds / 2, 16) units along d
  bf16* keys;               // (positions / 2, D) units along the positions
};

FORETOKEN_INLINE void gather_tiles(const AttentionPiece& piece, const TilePath& path) {
  const int D = piece.head_dim;
  const std::int64_t Ds = whole_steps(D), positions = tiles_positions(piece);
  const std::int32_t base = tiles_base(piece), end = piece.run.position + piece.run.count;
  const auto row_of = [&](const void* x, std::int64_t stride, std::int64_t position) {
    return (const bf16*)x + piece.run.path_rows[position] * stride + piece.kv_head * D;
  };
  for (std::int64_t j = 0; j < positions; j += kLanes) {
    const bf16 *k[kLanes], *v[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      const std::int64_t position = base + j + i;
      k[i] = position < end ? row_of(piece.k, piece.k_stride, position) : nullptr;
      v[i] = position < end ? row_of(piece.v, piece.v_stride, position) : nullptr;
      if (position + kLanes >= end) continue;
      prefetch(row_of(piece.k, piece.k_stride, position + kLanes), D);
      prefetch(row_of(piece.v, piece.v_stride, position + kLanes), D);
    }
    for (int d = 0; d < Ds; d += kStep) {
      WordPart square[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) square[i] = row_units(k[i], d, D);
#pragma GCC unroll 8
      for (int i = 0; i < kLanes; i += 2) {
        bf16* const units = path.keys + (j + i) * D + d * 2;
        store_words(units, in_pairs<0>(square[i], square[i + 1]));
        if (d + kLanes < D) store_words(units + kStep, in_pairs<kLanes>(square[i], square[i + 1]));
      }
      transpose_square(square);
#pragma GCC unroll 16
      for (int u = 0; u < kLanes; ++u) store_words(path.keys_transposed + j * Ds + (d / 2 + u) * kStep, square[u]);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) square[i] = row_units(v[i], d, D);
      transpose_square(square);
#pragma GCC unroll 16
      for (int u = 0; u < kLanes; ++u) store_words(path.values_transposed + j * Ds + (d / 2 + u) * kStep, square[u]);
    }
  }
}

/// 32 rows of D (or null, for zeros) -> (32, Ds), and on their side: (D, kTileQueries) of which they are 32 columns.
FORETOKEN_INLINE void copy_queries(const bf16* const* rows, int D, bf16* copy, bf16* sides) {
  const std::int64_t Ds = whole_steps(D);
  for (int d = 0; d < Ds; d += kStep) {
    WordPart low[kLanes], high[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) {
      const WordPart first = row_units(rows[2 * i], d, D), second = row_units(rows[2 * i + 1], d, D);
      store_words(copy + 2 * i * Ds + d, first);
      store_words(copy + (2 * i + 1) * Ds + d, second);
      low[i] = in_pairs<0>(first, second);
      high[i] = in_pairs<kLanes>(first, second);
    }
    transpose_square(low);
#pragma GCC unroll 16
    for (int c = 0; c < kLanes; ++c) store_words(sides + (d + c) * kTileQueries, low[c]);
    if (d + kLanes >= D) continue;
    transpose_square(high);
#pragma GCC unroll 16
    for (int c = 0; c < kLanes; ++c) store_words(sides + (d + kLanes + c) * kTileQueries, high[c]);
  }
}

/// Queries of one tile and what is known of each; those after the last one see nothing.
struct TileQuery {
  std::int32_t first, last;   // positions it sees
  float delta, lse;
};

/// A vector of each of two queries, rounded: the first one's numbers, then the second one's.
FORETOKEN_INLINE WordPart rounded_both(Vec first, Vec second) {
  return (WordPart)_mm512_cvtne2ps_pbh((__m512)second.p[0], (__m512)first.p[0]);
}

/// The same in pairs.
FORETOKEN_INLINE WordPart paired(WordPart both) {
  constexpr auto pair = [](int i) { return (std::uint32_t)i | (std::uint32_t)(kLanes + i) << 16; };
  const WordPart order = {pair(0), pair(1), pair(2),  pair(3),  pair(4),  pair(5),  pair(6),  pair(7),
                          pair(8), pair(9), pair(10), pair(11), pair(12), pair(13), pair(14), pair(15)};
  return (WordPart)_mm512_permutexvar_epi16((__m512i)order, (__m512i)both);
}

/// Of two queries, for `pages` of positions from j on: in place of the scores (in p) and of dout · v (in ds) come p and
/// ds as the products want them, pairs of both queries' p in the first row of p, of their ds in the second, and in ds
/// rows of it.
FORETOKEN_INLINE void weigh_pair(const TileQuery* query, float scale, std::int32_t j, int pages, float* p, float* ds) {
  const Vec scales = broadcast(scale);
  Vec weight[2], gradient[2];
  for (int c = 0; c < pages * kLanes; c += kLanes) {
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const Vec e = exp(fma(load(p + i * kStepPositions + c), scales, broadcast(-query[i].lse)));
      weight[i] = within(lane_numbers(j + c), query[i].first, query[i].last, e, zero());
      gradient[i] = weight[i] * (load(ds + i * kStepPositions + c) - broadcast(query[i].delta)) * scales;
    }
    const WordPart gradients = rounded_both(gradient[0], gradient[1]);
    store_words(p + c, paired(rounded_both(weight[0], weight[1])));
    store_words(p + kStepPositions + c, paired(gradients));
    const __m512i rows = (__m512i)gradients;
    _mm256_storeu_si256((__m256i*)((bf16*)ds + c), _mm512_castsi512_si256(rows));
    _mm256_storeu_si256((__m256i*)((bf16*)(ds + kStepPositions) + c), _mm512_extracti64x4_epi64(rows, 1));
  }
  if (pages % 2 == 0) return;   // the product's step has a page more
  store((bf16*)ds + pages * kLanes, zero());
  store((bf16*)(ds + kStepPositions) + pages * kLanes, zero());
}

void attention_backward_tiles(const AttentionPiece& piece) {
  const SquareTiles setting;
  const QueryRun& run = piece.run;
  const int D = piece.head_dim, G = piece.group;
  const std::int64_t Ds = whole_steps(D), positions = tiles_positions(piece);
  const std::int32_t base = tiles_base(piece);
  const int vectors = D / kLanes, d_steps = (int)(Ds / kStep);

  float* memory = piece.scratch;
  const auto floats = [&](std::int64_t count) { float* part = memory; memory += count; return part; };
  const auto halves = [&](std::int64_t count) { return (bf16*)floats(count / 2); };
  const TilePath path = {halves(positions * Ds), halves(positions * Ds), halves(positions * D)};
  float* const dkeys = piece.dpath;                   // (pages, D, 16)
  float* const dvalues = dkeys + positions * D;
  bf16* const q = halves(kTileQueries * Ds);          // (kTileQueries, Ds)
  bf16* const upstream = halves(kTileQueries * Ds);
  bf16* const q_sides = halves(kTileQueries * D);     // (D, kTileQueries)
  bf16* const upstream_sides = halves(kTileQueries * D);
  float* const dq = floats(kTileQueries * D);         // (kTileQueries, D)
  float* const p = floats(kTileQueries * kStepPositions);   // (kTileQueries, kStepPositions)
  float* const ds = floats(kTileQueries * kStepPositions);

  gather_tiles(piece, path);
  for (std::int64_t i = 0; i < 2 * positions * D; i += kLanes) store(dkeys + i, zero());

  // Tiles of rows times heads; where the heads alone are more than a tile, of heads.
  const int heads_at_once = G < kTileQueries ? G : kTileQueries;
  const std::int32_t rows_at_once = kTileQueries / heads_at_once;
  for (std::int32_t n = 0; n < run.count; n += rows_at_once)
    for (int g = 0; g < G; g += heads_at_once) {
      const int heads = G - g < heads_at_once ? G - g : heads_at_once;
      const int rows = run.count - n < rows_at_once ? run.count - n : rows_at_once;
      const int queries = rows * heads, whole = (int)whole_steps(queries);
      const bf16 *q_of[kTileQueries] = {}, *upstream_of[kTileQueries] = {};
      TileQuery query[kTileQueries];
      for (int m = 0; m < queries; ++m) {
        const std::int64_t row = run.row + n + m / heads;
        const int head = piece.kv_head * G + g + m % heads;
        const bf16* out = (const bf16*)piece.out + row * piece.out_stride + head * D;
        q_of[m] = (const bf16*)piece.q + row * piece.q_stride + head * D;
        upstream_of[m] = (const bf16*)piece.dout + row * piece.dout_stride + head * D;
        const std::int32_t position = run.position + n + m / heads;
        query[m].first = first_visible(position, piece.window);
        query[m].last = position;
        query[m].lse = piece.lse[row * piece.lse_stride + head];
        query[m].delta = reduce(D, [&](Vec total, std::int64_t d, auto lanes) {
          return fma(load(upstream_of[m] + d, lanes), load(out + d, lanes), total);
        });
      }
      for (int m = queries; m < whole; ++m) query[m] = {0, -1, 0, 0};
      for (int m = 0; m < whole; m += kStep) {
        copy_queries(q_of + m, D, q + m * Ds, q_sides + m);
        copy_queries(upstream_of + m, D, upstream + m * Ds, upstream_sides + m);
      }
      for (std::int64_t i = 0; i < queries * D; i += kLanes) store(dq + i, zero());

      // The next tile's rows, and where this one's will go.
      for (std::int32_t r = 0; r < rows_at_once; ++r) {
        const std::int64_t row = run.row + n + r, column = (piece.kv_head * G + g) * D;
        if (n + r < run.count) prefetch<true>(piece.dq + row * piece.dq_stride + column, heads * D);
        if (n + rows_at_once + r >= run.count || heads < G) continue;
        prefetch((const bf16*)piece.q + (row + rows_at_once) * piece.q_stride + column, heads * D);
        prefetch((const bf16*)piece.out + (row + rows_at_once) * piece.out_stride + column, heads * D);
        prefetch((const bf16*)piece.dout + (row + rows_at_once) * piece.dout_stride + column, heads * D);
      }

      constexpr std::int64_t row_bytes = kStepPositions * 4;   // of p and ds
      const int query_tiles = (queries + kAmxRows - 1) / kAmxRows;
      const std::int32_t last = run.position + n + rows - 1;
      for (std::int32_t j = query[0].first / kStep * kStep; j <= last; j += kStepPositions) {
        const std::int64_t offset = j - base;
        const int pages = last - j + 1 >= kStepPositions ? kStepPages : (last - j) / kLanes + 1;
        const int steps = (pages + 1) / 2;
        const auto products = [&](bf16* rows, bf16* transposed, float* into) {
          const TileMemory left = {(const char*)rows, Ds * 2, kAmxRows * Ds * 2, kAmxRowBytes};
          const TileMemory right = {(const char*)(transposed + offset * Ds), kAmxRowBytes, kLanes * Ds * 2,
                                    kAmxUnits * kAmxRowBytes};
          multiply_tiles<true>(left, right, query_tiles, pages, d_steps, into, row_bytes, kAmxRows * row_bytes,
                               kAmxRowBytes);
        };
        products(q, path.keys_transposed, p);
        products(upstream, path.values_transposed, ds);
        for (int m = 0; m < queries; m += 2)
          weigh_pair(query + m, piece.scale, j, pages, p + m * kStepPositions, ds + m * kStepPositions);
        for (std::int64_t i = (queries + 1) / 2 * 2 * kStepPositions; i < whole * kStepPositions; i += kLanes) {
          store(p + i, zero());
          store(ds + i, zero());
        }

        const TileMemory gradients = {(const char*)ds, row_bytes, kAmxRows * row_bytes, kAmxRowBytes};
        const TileMemory keys = {(const char*)(path.keys + offset * D), D * 4, kAmxRowBytes, kAmxUnits * D * 4};
        multiply_tiles<false>(gradients, keys, query_tiles, vectors, steps, dq, D * 4, kAmxRows * D * 4, kAmxRowBytes);
        const auto to_path = [&](bf16* sides, float* pairs, float* into) {
          const TileMemory left = {(const char*)sides, kTileQueries * 2, kAmxRows * kTileQueries * 2, kAmxRowBytes};
          const TileMemory right = {(const char*)pairs, 2 * row_bytes, kAmxRowBytes, kAmxUnits * 2 * row_bytes};
          multiply_tiles<false>(left, right, vectors, pages, whole / kStep, into + offset * D, kAmxRowBytes,
                                kAmxRows * kAmxRowBytes, D * kAmxRowBytes);
        };
        to_path(q_sides, p + kStepPositions, dkeys);
        to_path(upstream_sides, p, dvalues);
      }

      for (int m = 0; m < queries; ++m) {
        float* row = piece.dq + (run.row + n + m / heads) * piece.dq_stride + (piece.kv_head * G + g + m % heads) * D;
        for (int d = 0; d < D; d += kLanes) store(row + d, load(dq + m * D + d));
      }
    }
}

void attention_backward_add_tiles(const AttentionPiece& piece) {
  const int D = piece.head_dim;
  const std::int64_t positions = tiles_positions(piece);
  const std::int32_t base = tiles_base(piece), end = piece.run.position + piece.run.count;
  const auto add = [&](const float* shares, float* gradients, std::int64_t stride) {   // shares (D, 16) of a page
    for (std::int32_t j = base; j < end; j += kLanes, shares += kLanes * D) {
      const int count = end - j < kLanes ? end - j : kLanes;
      for (int d = 0; d < D; d += kLanes) {
        WordPart square[kLanes];
#pragma GCC unroll 16
        for (int c = 0; c < kLanes; ++c) square[c] = load_units(shares + (d + c) * kLanes).p[0];
        transpose_square(square);
        for (int i = 0; i < count; ++i) {
          float* const row = gradients + piece.run.path_rows[j + i] * stride + piece.kv_head * D + d;
          store(row, load(row) + Vec{{(FloatPart)square[i]}});
        }
      }
    }
  };
  add(piece.dpath, piece.dk, piece.dk_stride);
  add(piece.dpath + positions * D, piece.dv, piece.dv_stride);
}

}  // namespace
}  // namespace foretoken::cpu
