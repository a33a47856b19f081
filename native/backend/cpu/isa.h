#pragma once

#include <cstdint>
#include <string>

namespace foretoken::cpu {

/// The instruction sets that have kernels of their own. Bits are reproducible within one of them, not across.
enum class Isa : std::uint8_t {
  Portable,    // compiler vectors: any machine, arm64 among them
  Avx2,        // AVX2 with FMA
  Avx512,      // AVX-512 F, BW, DQ, VL
  Avx512Bf16,  // the same with BF16's pairwise dot product
  Amx,         // the same with tile registers for products of bfloat16
};

inline constexpr Isa kAllIsas[] = {Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Amx};

/// "portable", "avx2", "avx512", "avx512-bf16" or "amx".
const char* name_of(Isa isa);

/// The instruction set of that name; throws InvalidArgument with the list of names.
Isa parse_isa(const std::string& name);

/// Whether this build has the kernels, and this processor and operating system the registers.
bool isa_available(Isa isa);

/// The fastest one available.
Isa best_isa();

/// What the environment variable FORETOKEN_ISA names, else `best_isa()`. Throws InvalidArgument for an unknown
/// name and DeviceUnavailable for one that this machine lacks.
Isa selected_isa();

}  // namespace foretoken::cpu
