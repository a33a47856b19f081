#include "backend/cpu/isa.h"

#include <cstdlib>

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

}  // namespace

const char* name_of(Isa isa) {
  switch (isa) {
    case Isa::Portable: return "portable";
    case Isa::Avx2: return "avx2";
    case Isa::Avx512: return "avx512";
    case Isa::Avx512Bf16: return "avx512-bf16";
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
  return avx512 && __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

Isa best_isa() {
  for (const Isa isa : {Isa::Avx512Bf16, Isa::Avx512, Isa::Avx2}) {
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
