#pragma once

#include <memory>

#include "backend/backend.h"
#include "backend/cpu/isa.h"

namespace foretoken {

struct CpuOptions {
  DType dtype = DType::Float32;  // Float32 or BFloat16: the dtype of activations and products
  int threads = 0;               // 0: as many as affinity and cgroup allow
  cpu::Isa isa = cpu::selected_isa();
};

std::unique_ptr<Backend> make_cpu_backend(const CpuOptions& options);

}  // namespace foretoken
