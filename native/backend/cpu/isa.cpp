#include "backend/cpu/isa.h"

#include <cstdlib>
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "core/error.h"

namespace foretoken::cpu {

namespace {

std::string names(bool available_only) {
  std::string text;
  for (const Isa isa : kAllIsas) {
    if (available_only && !isa_available(isa)) continue;
    if (!text.empty()) text += ", ";
    text += name_of(isa);
  }
  return text;
}

#if defined(__x86_64__)
/// Whether the processor has AMX's tiles with bfloat16, and the system lets this process use them: their 8 KiB of state
/// are saved only for processes that have asked (Linux 5.16 and later, Documentation/arch/x86/xstate.rst).
bool amx_permitted() {
#if defined(__linux__)
  constexpr unsigned kTile = 1u << 24, kBfloat16 = 1u << 22;   // CPUID leaf 7, EDX
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0 || (edx & kTile) == 0 || (edx & kBfloat16) == 0) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;   // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

}  // namespace

const char* name_of(Isa isa) {
  switch (isa) {
    case Isa::Portable: return "portable";
    case Isa::Avx2: return "avx2";
    case Isa::Avx512: return "avx512";
    case Isa::Avx512Bf16: return "avx512-bf16";
    case Isa::Amx: return "amx";
  }
  return "?";
}

Isa parse_isa(const std::string& name) {
  for (const Isa isa : kAllIsas) {
    if (name == name_of(isa)) return isa;
  }
  fail(ErrorCode::InvalidArgument, "unknown instruction set \"", name, "\"; the names are ", names(false));
}

bool isa_available(Isa isa) {
  if (isa == Isa::Portable) return true;
#if defined(__x86_64__)
  // __builtin_cpu_supports also asks the operating system (XGETBV) whether it saves the wide registers.
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (isa == Isa::Avx2) return avx2;
  if (isa == Isa::Avx512) return avx512;
  const bool avx512_bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
  if (isa == Isa::Avx512Bf16) return avx512_bf16;
  static const bool amx = avx512_bf16 && amx_permitted();
  return amx;
#else
  return false;
#endif
}

Isa best_isa() {
  for (const Isa isa : {Isa::Amx, Isa::Avx512Bf16, Isa::Avx512, Isa::Avx2}) {
    if (isa_available(isa)) return isa;
  }
  return Isa::Portable;
}

Isa selected_isa() {
  const char* name = std::getenv("FORETOKEN_ISA");
  if (name == nullptr || *name == '\0') return best_isa();
  const Isa isa = parse_isa(name);
  if (!isa_available(isa)) {
    fail(ErrorCode::DeviceUnavailable, "FORETOKEN_ISA asks for ", name, ", which this machine lacks; it has ",
         names(true));
  }
  return isa;
}

}  // namespace foretoken::cpu
