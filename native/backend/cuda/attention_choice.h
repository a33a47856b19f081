#pragma once

namespace foretoken::cuda {

class Device;

/// Whether attention uses the kernels on warpgroup products (attention_*_sm90.cu) rather than those on mma.sync:
/// FORETOKEN_CUDA_ATTENTION=wgmma. Throws where the GPU does not have these products.
bool chooses_warpgroup_attention(const Device& device);

}  // namespace foretoken::cuda
