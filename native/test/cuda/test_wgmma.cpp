#include <cmath>
#include <random>
#include <vector>

#include "backend/cuda/device/arrivals.h"
#include "backend/cuda/device/wgmma.h"
#include "core/error.h"
#include "test/files.h"
#include "test/test.h"

// Products by warpgroups as the host does them, from descriptions of shared memory, and what it finds in wrong uses.
namespace foretoken::test {
namespace {

using namespace cuda;

constexpr ThreadOrder kOrders[] = {ThreadOrder::Forward, ThreadOrder::Reverse, ThreadOrder::Random};

/// A matrix (rows, cols) of numbers that bfloat16 has.
struct Numbers {
  Numbers(int rows, int cols, unsigned seed) : cols(cols), values(static_cast<std::size_t>(rows) * cols) {
    std::mt19937 random(seed);
    for (BFloat16& x : values) x = BFloat16(static_cast<float>(static_cast<int>(random() % 2001) - 1000) / 64);
  }
  BFloat16 at(int row, int col) const { return values[static_cast<std::size_t>(row) * cols + col]; }
  int cols;
  std::vector<BFloat16> values;
};

/// The block's threads write the matrix as an operand.
void place(const Numbers& x, int rows, BFloat16* to) {
  for (int i = thread_index(); i < rows * x.cols; i += block_threads())
    to[operand_element(rows, i / x.cols, i % x.cols)] = x.at(i / x.cols, i % x.cols);
}

/// result (64 · warpgroups, Columns) of what each thread holds of a warpgroup's product.
template <int Count>
void store(const float (&c)[Count], std::vector<float>& result) {
  for (int i = 0; i < Count; ++i)
    result[(warp_index() * 16 + tile_row(0, i % 4 / 2)) * 2 * Count + tile_column(i / 8, i / 4 % 2, i % 2)] = c[i];
}

template <typename A, typename B>
std::vector<float> plain(int rows, int columns, int K, const A& a, const B& b, float initial = 0) {
  std::vector<float> result;
  for (int row = 0; row < rows; ++row)
    for (int column = 0; column < columns; ++column) {
      float sum = initial;
      for (int k = 0; k < K; ++k) sum += widen(a(row, k)) * widen(b(k, column));
      result.push_back(sum);
    }
  return result;
}

TEST("wgmma: a · bᵀ of operands in shared memory, wider than a block, is that of plain loops to the bit") {
  constexpr int K = 128, groups = 2, rows = groups * kWarpgroupRows;
  const Numbers a(rows, K, 1), b(64, K, 2);
  for (const float initial : {0.0f, 3.5f})
    for (const ThreadOrder order : kOrders) {
      std::vector<float> result(rows * 64);
      Emulator(order).run("a · bᵀ", {1, groups * kWarpgroup, sizeof(BFloat16) * (rows + 64) * K}, [&] {
        BFloat16 *left = operand_memory(), *right = left + rows * K;
        place(a, rows, left);
        place(b, 64, right);
        show_to_products();
        sync_block();
        float c[32];
        for (float& x : c) x = initial;
        fence_products();
        for (int k = 0; k < K; k += 16) {
          const Operand from_a = operand_along(left + warpgroup_index() * kWarpgroupRows * kBlockColumns);
          const int block = k / kBlockColumns * kBlockRowBytes, within = k % kBlockColumns * 2;
          const Operand x = operand_after(from_a, block * rows + within);
          const Operand y = operand_after(operand_along(right), block * 64 + within);
          if (k == 0 && initial == 0) multiply_operands<false>(c, x, y);
          else multiply_operands<true>(c, x, y);
        }
        commit_products();
        CHECK(std::isnan(c[0]));  // nobody has waited
        wait_products<0>(c);
        store(c, result);
      });
      CHECK(result == plain(rows, 64, K, [&](int m, int k) { return a.at(m, k); }, [&](int k, int n) { return b.at(n, k); },
                            initial));
    }
}

template <int Count>
void check_factor_product(ThreadOrder order) {
  constexpr int K = 64, columns = 2 * Count;
  const Numbers a(kWarpgroupRows, K, 3), b(K, columns, 4);
  std::vector<float> result(kWarpgroupRows * columns);
  Emulator(order).run("a · b", {1, kWarpgroup, sizeof(BFloat16) * K * columns}, [&] {
    BFloat16* right = operand_memory();
    place(b, K, right);
    show_to_products();
    sync_block();
    Factor<BFloat16> factors[K / 16];
    for (int p = 0; p < K / 16; ++p) {
      float tile[2][4];
      for (int i = 0; i < 8; ++i)
        tile[i / 4][i % 4] = widen(a.at(16 * warp_index() + tile_row(0, i % 4 / 2), tile_column(p, i / 4, i % 2)));
      factors[p] = factor_of<BFloat16>(tile);
    }
    float c[Count];
    fence_products();
    for (int p = 0; p < K / 16; ++p) {
      const Operand y = operand_after(operand_across(right, K), p * 16 * kBlockRowBytes);
      if (p == 0) multiply_factor<false>(c, factors[p], y);
      else multiply_factor<true>(c, factors[p], y);
      commit_products();
    }
    wait_products<0>(c);
    store(c, result);
  });
  CHECK(result == plain(kWarpgroupRows, columns, K, [&](int m, int k) { return a.at(m, k); },
                        [&](int k, int n) { return b.at(k, n); }));
}

TEST("wgmma: a · b with a in registers and b across is that of plain loops to the bit") {
  for (const ThreadOrder order : kOrders) {
    check_factor_product<32>(order);
    check_factor_product<64>(order);
  }
}

/// The message of a kernel whose product is `wrong` somewhere.
template <typename Wrong>
std::string message_of_product(const Wrong& wrong) {
  return message_of([&] {
    Emulator(ThreadOrder::Forward).run("wrong", {1, kWarpgroup, sizeof(BFloat16) * 2 * 64 * 64}, [&] {
      BFloat16* left = operand_memory();
      for (int i = thread_index(); i < 2 * 64 * 64; i += block_threads()) left[i] = BFloat16(1.0f);
      sync_block();
      float c[32] = {};
      wrong(left, c);
    });
  });
}

TEST("wgmma: a product without its fence, factors or sums that change meanwhile, and wrong descriptions are reported") {
  const auto start = [](BFloat16* left, float (&c)[32]) {
    multiply_operands<true>(c, operand_along(left), operand_along(left + 64 * 64));
    commit_products();
  };
  CHECK(contains(message_of_product([&](BFloat16* left, float (&c)[32]) { start(left, c); }), "without fence_products"));
  CHECK(contains(message_of_product([&](BFloat16* left, float (&c)[32]) {
    fence_products();
    start(left, c);
    sync_block();
    if (thread_index() == 5) left[operand_element(64, 40, 3)] = BFloat16(2.0f);
    sync_block();
    wait_products<0>(c);
  }), "a factor changes"));
  CHECK(contains(message_of_product([&](BFloat16* left, float (&c)[32]) {
    fence_products();
    start(left, c);
    c[7] = 0;
    wait_products<0>(c);
  }), "sums change"));
  CHECK(contains(message_of_product([&](BFloat16* left, float (&c)[32]) {
    fence_products();
    const std::uint64_t described = cuda::detail::description(operand_along(left));
    cuda::detail::multiply(c, nullptr, described, described & ~(std::uint64_t{3} << 62), false, true);  // no swizzling
  }), "described wrongly"));
}

TEST("arrivals: what a warp did before it arrived is there for those who wait, round after round") {
  constexpr int threads = 96, rounds = 5;
  for (const ThreadOrder order : kOrders) {
    std::vector<int> seen(threads, 0);
    Emulator(order).run("rounds", {1, threads, 1024}, [&] {
      int* done = shared_memory<int>();  // by each warp
      Arrivals* arrivals = reinterpret_cast<Arrivals*>(done + 32);
      if (lane_index() == 0) done[warp_index()] = 0;
      if (thread_index() == 0) begin_arrivals(arrivals, threads / kWarp);
      sync_block();
      for (int round = 0; round < rounds; ++round) {
        if (lane_index() == 0) done[warp_index()] = round + 1;
        arrive(arrivals);
        wait_arrivals(arrivals, round);
        bool all = true;
        for (int w = 0; w < threads / kWarp; ++w) all = all && done[w] >= round + 1;
        seen[thread_index()] += all;
      }
    });
    CHECK(seen == std::vector<int>(threads, rounds));
  }
}

TEST("arrivals: a thread that waits for a warp that never arrives is reported") {
  for (const ThreadOrder order : kOrders)
    CHECK(contains(message_of([&] {
      Emulator(order).run("alone", {1, 64, 64}, [] {
        Arrivals* arrivals = shared_memory<Arrivals>();
        if (thread_index() == 0) begin_arrivals(arrivals, 2);
        sync_block();
        if (warp_index() == 1) return;
        arrive(arrivals);
        wait_arrivals(arrivals, 0);
      });
    }), "or for arrivals"));
}

}  // namespace
}  // namespace foretoken::test
