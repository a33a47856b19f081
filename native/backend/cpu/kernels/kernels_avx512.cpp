#include "backend/cpu/kernels/variant.h"

namespace foretoken::cpu {

const Kernels& kernels_avx512(bool bfloat16) { return bfloat16 ? kKernels<bf16> : kKernels<float>; }

}  // namespace foretoken::cpu
