#include "backend/cpu/cpu_backend.h"

#include "backend/cpu/operations.h"
#include "core/error.h"

namespace foretoken {

namespace cpu {

const Kernels& kernels_for(Isa isa, bool bfloat16) {
#if defined(__x86_64__)
  if (isa == Isa::Amx) return kernels_amx(bfloat16);
  if (isa == Isa::Avx512Bf16) return kernels_avx512_bf16(bfloat16);
  if (isa == Isa::Avx512) return kernels_avx512(bfloat16);
  if (isa == Isa::Avx2) return kernels_avx2(bfloat16);
#endif
  (void)isa;
  return kernels_portable(bfloat16);
}

CpuBackend::CpuBackend(const CpuOptions& options)
    : dtype_(options.dtype),
      isa_(options.isa),
      matmul_(matmul_for(options.isa)),
      kernels_(kernels_for(options.isa, options.dtype == DType::BFloat16)),
      kernels32_(kernels_for(options.isa, false)),
      kernels16_(kernels_for(options.isa, true)),
      team_(options.threads) {}

std::string CpuBackend::description() const {
  return std::string("cpu, ") + name_of(isa_) + ", " + name_of(dtype_) + ", " + std::to_string(team_.size()) +
         (team_.size() == 1 ? " thread" : " threads");
}

const Kernels& CpuBackend::kernels_of(DType dtype) const {
  invariant(dtype == DType::Float32 || dtype == DType::BFloat16, "the CPU backend computes in float32 and bfloat16");
  return dtype == DType::BFloat16 ? kernels16_ : kernels32_;
}

}  // namespace cpu

std::unique_ptr<Backend> make_cpu_backend(const CpuOptions& options) {
  if (options.dtype != DType::Float32 && options.dtype != DType::BFloat16)
    fail(ErrorCode::InvalidArgument, "the CPU computes in float32 or bfloat16, not in ", name_of(options.dtype));
  if (options.threads < 0) fail(ErrorCode::InvalidArgument, "threads must be 0 (all) or more, not ", options.threads);
  return std::make_unique<cpu::CpuBackend>(options);
}

}  // namespace foretoken
