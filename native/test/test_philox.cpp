#include <set>

#include "core/philox.h"
#include "test/test.h"

using namespace foretoken;

namespace {
using Words = std::array<std::uint32_t, 4>;
}

TEST("Philox4x32-10 gives the known answers that Random123 publishes") {
  CHECK((philox({0, 0, 0, 0}, {0, 0}) == Words{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}));
  CHECK((philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}) == Words{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}));
  CHECK((philox({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}, {0xa4093822u, 0x299f31d0u}) ==
         Words{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}));
}

TEST("every part of a draw's address changes the draw") {
  const auto base = random_words(1, RandomUse::Sampling, 2, 3);
  CHECK((base == random_words(1, RandomUse::Sampling, 2, 3)));
  std::set<Words> draws{base};
  draws.insert(random_words(2, RandomUse::Sampling, 2, 3));
  draws.insert(random_words(1 + (std::uint64_t{1} << 32), RandomUse::Sampling, 2, 3));
  draws.insert(random_words(1, RandomUse::Initialisation, 2, 3));
  draws.insert(random_words(1, RandomUse::Sampling, 3, 3));
  draws.insert(random_words(1, RandomUse::Sampling, 2, 4));
  draws.insert(random_words(1, RandomUse::Sampling, 2, 3 + (std::uint64_t{1} << 32)));
  CHECK_EQ(draws.size(), std::size_t{7});
}

TEST("uniform numbers keep to their intervals") {
  CHECK_EQ(uniform_float(0), 0.0f);
  CHECK(uniform_float(~0u) < 1.0f);
  CHECK(uniform_double(0, 0) > 0.0);
  CHECK(uniform_double(~0u, ~0u) < 1.0);
}
