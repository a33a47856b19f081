#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "backend/cpu/isa.h"
#include "backend/cpu/kernels/kernels.h"
#include "core/dtype.h"
#include "test/test.h"

using namespace foretoken;
using cpu::Isa;

namespace {

std::uint32_t bits(float x) { return std::bit_cast<std::uint32_t>(x); }
float number(std::uint32_t bits) { return std::bit_cast<float>(bits); }

/// |approximate − exact| in units of the last place of the float nearest to `exact`.
double ulps(float approximate, double exact) {
  const float nearest = static_cast<float>(exact);
  const float next = std::nextafter(std::fabs(nearest), std::numeric_limits<float>::infinity());
  return std::fabs(static_cast<double>(approximate) - exact) / (static_cast<double>(next) - std::fabs(nearest));
}

template <typename Body>
void for_each_isa(const Body& body) {
  for (Isa isa : cpu::kAllIsas)
    if (cpu::isa_available(isa)) body(isa, cpu::kernels_for(isa, false));
}

std::vector<float> exponentials(const cpu::Kernels& kernels, const std::vector<float>& x) {
  std::vector<float> y(x.size());
  kernels.exponential(x.data(), y.data(), static_cast<std::int64_t>(x.size()));
  return y;
}

}  // namespace

TEST("the vector exponential is within 1 ulp, 1.5 without fused multiply-add, wherever it is a normal number") {
  // Every 509th float between the least and the greatest argument, of both signs: more than two million.
  std::vector<float> x;
  for (std::uint32_t word = 0; word < bits(88.72f); word += 509) x.push_back(number(word));
  for (std::uint32_t word = 0; word < bits(87.33f); word += 509) x.push_back(-number(word));
  for_each_isa([&](Isa isa, const cpu::Kernels& kernels) {
    const std::vector<float> y = exponentials(kernels, x);
    double worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i)
      worst = std::fmax(worst, ulps(y[i], std::exp(static_cast<double>(x[i]))));
    CHECK(worst <= (isa == Isa::Portable ? 1.5 : 1.0));
  });
}

TEST("the vector exponential goes to zero through subnormal numbers, overflows to infinity and keeps NaN") {
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for_each_isa([&](Isa, const cpu::Kernels& kernels) {
    const std::vector<float> y =
        exponentials(kernels, {0.0f, -0.0f, -104.5f, -1e30f, -infinity, 88.8f, 1e30f, infinity, nan});
    CHECK_EQ(y[0], 1.0f);
    CHECK_EQ(y[1], 1.0f);
    for (int i = 2; i < 5; ++i) CHECK_EQ(y[i], 0.0f);
    for (int i = 5; i < 8; ++i) CHECK_EQ(y[i], infinity);
    CHECK(std::isnan(y[8]));
    std::vector<float> x;
    for (float value = -87.4f; value > -103.9f; value -= 0.01f) x.push_back(value);
    const std::vector<float> subnormal = exponentials(kernels, x);
    for (std::size_t i = 0; i < x.size(); ++i) CHECK(ulps(subnormal[i], std::exp(static_cast<double>(x[i]))) <= 1.5);
  });
}

TEST("an exponential does not depend on its place in the vector") {
  std::vector<float> x(67);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i)) * 20;
  for_each_isa([&](Isa, const cpu::Kernels& kernels) {
    const std::vector<float> together = exponentials(kernels, x);
    for (std::size_t i = 0; i < x.size(); ++i) CHECK(exponentials(kernels, {x[i]}) == std::vector<float>{together[i]});
  });
}

TEST("float32 to bfloat16 in vectors rounds as BFloat16 does, and back") {
  std::vector<float> x;
  for (std::uint64_t word = 0; word < (std::uint64_t{1} << 32); word += 65521 * 3)
    x.push_back(number(static_cast<std::uint32_t>(word)));
  for (std::uint32_t high : {0x0000u, 0x3f80u, 0x3f81u, 0x7f7fu, 0x7f80u, 0xff80u, 0x8000u})
    for (std::uint32_t low : {0x0000u, 0x0001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu})
      x.push_back(number(high << 16 | low));
  const std::int64_t count = static_cast<std::int64_t>(x.size());
  for (Isa isa : cpu::kAllIsas) {
    if (!cpu::isa_available(isa)) continue;
    const cpu::Kernels& kernels = cpu::kernels_for(isa, true);
    std::vector<BFloat16> narrow(x.size());
    std::vector<float> wide(x.size()), rounded(x.size());
    kernels.narrow(x.data(), narrow.data(), count);
    kernels.widen(narrow.data(), wide.data(), count);
    kernels.round(x.data(), rounded.data(), count);
    for (std::size_t i = 0; i < x.size(); ++i) {
      CHECK_EQ(narrow[i].bits, BFloat16(x[i]).bits);
      CHECK_EQ(bits(wide[i]), static_cast<std::uint32_t>(narrow[i].bits) << 16);
      CHECK_EQ(bits(rounded[i]), bits(wide[i]));
    }
  }
}
