#include "backend/cpu/matmul_vectors_avx512.h"

namespace foretoken::cpu {

const Matmul kMatmulAvx512 = {Isa::Avx512, kernels_of<Float32<Vectors512>>(),
                              kernels_of<WidenedBFloat16<Vectors512>>()};

}  // namespace foretoken::cpu
