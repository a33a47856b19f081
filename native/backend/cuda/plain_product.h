#pragma once

#include "backend/cuda/matmul.h"

namespace foretoken::cuda {

/// Our own kernels for products: of any shape, stride and alignment, on every GPU and on the emulator.
void multiply_plainly(Device& device, const Product& product);

}  // namespace foretoken::cuda
