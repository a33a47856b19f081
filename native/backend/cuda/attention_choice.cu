#include "backend/cuda/attention_choice.h"

#include <cstdlib>
#include <string>

#include "backend/cuda/device/device.h"
#include "core/error.h"

namespace foretoken::cuda {

bool chooses_warpgroup_attention(const Device& device) {
  const char* value = std::getenv("FORETOKEN_CUDA_ATTENTION");
  const std::string wish = value ? value : "";
  if (wish.empty() || wish == "mma") return false;
  if (wish != "wgmma") fail(ErrorCode::InvalidArgument, "FORETOKEN_CUDA_ATTENTION is \"", wish, "\"; it can be mma or wgmma");
  if (device.compute_capability() != 90)
    fail(ErrorCode::DeviceUnavailable, "FORETOKEN_CUDA_ATTENTION asks for wgmma, which GPUs of compute capability 9.0 have, not ",
         device.description(), "; take mma");
  return true;
}

}  // namespace foretoken::cuda
