#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "backend/cuda/device/mma.h"

// wgmma.h on the host: each warp of a warpgroup computes its own sixteen rows.
namespace foretoken::cuda {

namespace detail {

/// Where the hardware finds number (n, k) of an operand with this description: n counts rows of A or columns of B, k what
/// is summed over; `across`: neighbours in memory have neighbouring n, not neighbouring k. In mode 1 of swizzling bits 4–6
/// of an address are combined with bits 7–9.
inline std::size_t operand_address(std::uint64_t description, bool across, int n, int k) {
  const auto field = [&](int bit) { return static_cast<std::size_t>(description >> bit & 0x3fff) * 16; };
  const std::size_t blocks_apart = field(16), groups_apart = field(32);
  const auto N = static_cast<std::size_t>(n), K = static_cast<std::size_t>(k);
  const std::size_t address = field(0) + (across ? N / 64 * blocks_apart + K / 8 * groups_apart + K % 8 * 128 + N % 64 * 2
                                                 : N / 8 * groups_apart + N % 8 * 128 + K * 2);
  return address ^ (address >> 3 & 0x70);
}

inline float operand_value(std::uint64_t description, bool across, int n, int k) {
  BFloat16 value;
  std::memcpy(&value, here.shared + operand_address(description, across, n, k), sizeof value);
  return widen(value);
}

/// What each lane brings to a product.
struct Factors {
  float* c;
  const Factor<BFloat16>* a;  // null: in shared memory
  std::uint64_t a_shared, b_shared;  // descriptions
};

/// A product under way.
struct WarpProduct {
  Factors lanes[kWarp];
  int columns;
  bool across;
  std::vector<float> left, right;  // (16, 16), (16, columns)

  void read(int rows_from) {
    left.resize(16 * 16);
    right.resize(16 * static_cast<std::size_t>(columns));
    for (int k = 0; k < 16; ++k)
      for (int n = 0; n < columns; ++n) right[k * columns + n] = operand_value(lanes[0].b_shared, across, n, k);
    for (int lane = 0; lane < kWarp; ++lane)
      for (int i = 0; i < 8; ++i) {
        const int row = lane / 4 + i % 4 / 2 * 8, k = i / 4 * 8 + lane % 4 * 2 + i % 2;
        left[row * 16 + k] = lanes[0].a ? float_of_bits(lanes[lane].a->x[i / 2] >> (16 * (i % 2)) << 16)
                                        : operand_value(lanes[0].a_shared, false, rows_from + row, k);
      }
  }
  bool same_factors(const WarpProduct& other) const {
    const auto same = [](const std::vector<float>& a, const std::vector<float>& b) {
      return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
    };
    return same(left, other.left) && same(right, other.right);
  }
};

/// Sums under way, (16, columns), of lanes whose registers hold NaNs meanwhile.
struct WarpSums {
  float* lanes[kWarp];
  int columns;
  std::size_t products;  // that have not been waited for
  std::vector<float> sums;

  template <typename Function>
  void for_each(const Function& f) {
    for (int lane = 0; lane < kWarp; ++lane)
      for (int i = 0; i < columns / 2; ++i)
        f(lanes[lane][i], sums[(lane / 4 + i % 4 / 2 * 8) * columns + i / 4 * 8 + lane % 4 * 2 + i % 2]);
  }
};

struct WarpProducts {
  std::vector<WarpProduct> products;
  std::vector<WarpSums> sums;
  std::vector<std::size_t> ends;  // of the groups
  bool fenced = false;
  std::uint64_t block = 0;  // Place::serial

  std::vector<WarpSums>::iterator sums_of(const float* c) {
    return std::find_if(sums.begin(), sums.end(), [&](const WarpSums& s) { return s.lanes[0] == c; });
  }
};
inline thread_local WarpProducts warp_products[kMaxThreads / kWarp];

inline WarpProducts& products_of_warp() {
  WarpProducts& mine = warp_products[here.thread / kWarp];
  if (mine.block != here.serial) mine = {{}, {}, {}, false, here.serial};
  return mine;
}
inline int rows_of_warp() { return here.thread / kWarp % 4 * 16; }

template <int Count>
void multiply(float (&c)[Count], const Factor<BFloat16>* a, std::uint64_t a_shared, std::uint64_t b_shared, bool across, bool add) {
  constexpr int columns = 2 * Count;
  once_per_warp(19, Factors{c, a, a_shared, b_shared}, [&](const Factors (&all)[kWarp]) {
    WarpProducts& mine = products_of_warp();
    if (!mine.fenced) Emulator::report("a product of a warpgroup begins without fence_products");
    constexpr std::uint64_t fields = 0x3fff | std::uint64_t{0x3fff} << 16 | std::uint64_t{0x3fff} << 32;
    for (const std::uint64_t description : {a ? b_shared : a_shared, b_shared})
      if ((description & ~fields) != std::uint64_t{1} << 62)
        Emulator::report("an operand in shared memory is described wrongly, or in a way that is not emulated");
    WarpProduct product{{}, columns, across, {}, {}};
    std::copy(all, all + kWarp, product.lanes);
    product.read(rows_of_warp());
    const auto under_way = mine.sums_of(all[0].c);
    const bool first = under_way == mine.sums.end();
    WarpSums& sums = first ? mine.sums.emplace_back() : *under_way;
    if (first) {
      for (int lane = 0; lane < kWarp; ++lane) sums.lanes[lane] = all[lane].c;
      sums.columns = columns;
      sums.products = 0;
      sums.sums.resize(16 * columns);
      sums.for_each([](float& x, float& sum) {
        sum = x;
        x = NAN;
      });
    }
    if (!add) std::fill(sums.sums.begin(), sums.sums.end(), 0.0f);
    ++sums.products;
    add_dense<16, columns, 16>(product.left.data(), product.right.data(), sums.sums.data());
    mine.products.push_back(std::move(product));
  });
}

inline void finish_products(std::size_t groups_under_way) {
  WarpProducts& mine = products_of_warp();
  mine.fenced = false;
  if (mine.ends.size() <= groups_under_way) return;
  const std::size_t done = mine.ends[mine.ends.size() - groups_under_way - 1];
  for (std::size_t i = 0; i < done; ++i) {
    WarpProduct& product = mine.products[i];
    WarpProduct now = product;
    now.read(rows_of_warp());
    if (!now.same_factors(product)) Emulator::report("a factor changes while a product of a warpgroup is under way");
    const auto sums = mine.sums_of(product.lanes[0].c);
    if (--sums->products > 0) continue;
    sums->for_each([](float& x, float& sum) {
      if (x == x) Emulator::report("sums change while a product of a warpgroup is under way");
      x = sum;
    });
    mine.sums.erase(sums);
  }
  mine.products.erase(mine.products.begin(), mine.products.begin() + static_cast<std::ptrdiff_t>(done));
  mine.ends.erase(mine.ends.begin(), mine.ends.end() - static_cast<std::ptrdiff_t>(groups_under_way));
  for (std::size_t& end : mine.ends) end -= done;
}

}  // namespace detail

inline void fence_products() {
  if (lane_index() == 0) detail::products_of_warp().fenced = true;
}
inline void commit_products() {
  if (lane_index() == 0) detail::products_of_warp().ends.push_back(detail::products_of_warp().products.size());
}
template <int Latest, int... Counts>
void wait_products([[maybe_unused]] float (&... c)[Counts]) {
  detail::once_per_warp(20, 0, [](const int (&)[kWarp]) { detail::finish_products(Latest); });
}
inline void show_to_products() {}

}  // namespace foretoken::cuda
