#include "backend/cpu/kernels/variant.h"

namespace foretoken::cpu {

const Kernels& kernels_avx512_bf16(bool bfloat16) { return bfloat16 ? kKernels<bf16> : kKernels<float>; }

}  // namespace foretoken::cpu
