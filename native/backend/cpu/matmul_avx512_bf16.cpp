#include "backend/cpu/matmul_vectors_avx512.h"

namespace foretoken::cpu {

const Matmul kMatmulAvx512Bf16 = {Isa::Avx512Bf16, kernels_of<Float32<Vectors512>>(), kernels_of<PairedBFloat16>()};

}  // namespace foretoken::cpu
