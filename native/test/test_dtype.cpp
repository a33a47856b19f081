#include <limits>

#include "core/dtype.h"
#include "test/test.h"

using namespace foretoken;

namespace {

std::uint32_t bits_of(float value) { return std::bit_cast<std::uint32_t>(value); }

/// A few hundred thousand float32 patterns over all exponents, with mantissas on both sides of every rounding point.
template <typename Visit>
void for_many_floats(Visit visit) {
  for (std::uint32_t upper = 0; upper < 0x10000u; ++upper)
    for (std::uint32_t lower : {0x0000u, 0x0001u, 0x1000u, 0x7fffu, 0x8000u, 0x8001u, 0xf000u, 0xffffu})
      visit(std::bit_cast<float>((upper << 16) | lower));
}

}  // namespace

TEST("bfloat16 rounds to the nearest, ties to the even mantissa") {
  for_many_floats([](float value) {
    const float rounded = static_cast<float>(BFloat16(value));
    if (std::isnan(value)) {
      CHECK(std::isnan(rounded));
      return;
    }
    const std::uint32_t bits = bits_of(value), down = bits & 0xffff0000u, rest = bits & 0xffffu;
    const bool up = rest > 0x8000u || (rest == 0x8000u && (down & 0x10000u));
    CHECK_EQ(bits_of(rounded), up ? down + 0x10000u : down);
  });
}

#ifdef __FLT16_MAX__
TEST("float16 converts as the compiler's own type does, for every value and every rounding point") {
  for (std::uint32_t bits = 0; bits < 0x10000u; ++bits) {
    Float16 half;
    half.bits = static_cast<std::uint16_t>(bits);
    const float ours = static_cast<float>(half), theirs = static_cast<float>(std::bit_cast<_Float16>(half.bits));
    CHECK(std::isnan(theirs) ? std::isnan(ours) : bits_of(ours) == bits_of(theirs));
  }
  for_many_floats([](float value) {
    const std::uint16_t theirs = std::bit_cast<std::uint16_t>(static_cast<_Float16>(value));
    if (std::isnan(value)) CHECK(std::isnan(static_cast<float>(Float16(value))));
    else CHECK_EQ(Float16(value).bits, theirs);
  });
}
#endif
