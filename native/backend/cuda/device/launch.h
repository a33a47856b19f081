#pragma once

#include <algorithm>
#include <type_traits>

#include "backend/cuda/device/chunk.h"
#include "backend/cuda/device/device.h"
#include "backend/view.h"
#include "core/error.h"

#ifdef __CUDACC__
#include "backend/cuda/device/check.h"
#endif

namespace foretoken::cuda {

/// Queues kernel(arguments…) on the device: `<<<>>>` under nvcc, the emulator elsewhere. `name` is for messages;
/// FORETOKEN_LAUNCH fills it in.
template <typename... Parameters, typename... Arguments>
void launch(const char* name, Device& device, void (*kernel)(Parameters...), const Grid& grid,
            const Arguments&... arguments) {
  if (grid.blocks == 0) return;
  if (grid.shared_bytes > device.shared_bytes())
    fail(ErrorCode::UnsupportedConfig, name, " needs ", (grid.shared_bytes + 1023) / 1024, " KB of shared memory for a block; ",
         device.description(), " has ", device.shared_bytes() / 1024, " KB. What helps: dtype bfloat16, a model with smaller "
         "heads, or a GPU with more, such as A100 or H100");
  device.enter();
#ifdef __CUDACC__
  if (grid.shared_bytes > 48 * 1024)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(grid.shared_bytes)), name);
  const dim3 blocks(static_cast<unsigned>(grid.blocks), static_cast<unsigned>(grid.bands));
  kernel<<<blocks, grid.threads, grid.shared_bytes, static_cast<cudaStream_t>(device.stream())>>>(
      static_cast<Parameters>(arguments)...);
  check(cudaGetLastError(), name);
#else
  Emulator* const emulator = static_cast<Emulator*>(device.stream());
  // Arguments are kept by value, as a GPU keeps them.
  emulator->queue([=] { emulator->run(name, grid, [&] { kernel(static_cast<Parameters>(arguments)...); }); });
#endif
}

/// FORETOKEN_LAUNCH(device, (kernel<T>), grid, arguments…)
#define FORETOKEN_LAUNCH(device, kernel, grid, ...) \
  ::foretoken::cuda::launch(#kernel, device, kernel, grid, __VA_ARGS__)

/// The view as a kernel takes it. T may be const.
template <typename T>
Matrix<T> matrix(const View& x) {
  using Plain = std::remove_const_t<T>;
  if constexpr (!std::is_same_v<Plain, std::byte>)
    invariant(!x || x.dtype == dtype_of<Plain>::value, "a CUDA kernel got a matrix of another dtype");
  const bool aligned = reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0 &&
                       (x.rows <= 1 || static_cast<std::size_t>(x.stride) * sizeof(T) % 16 == 0);
  return {static_cast<T*>(x.data), x.stride, aligned};
}

/// Calls body(T()) with the activation dtype's type.
template <typename Body>
void with_type(DType dtype, const Body& body) {
  if (dtype == DType::BFloat16) body(BFloat16());
  else if (dtype == DType::Float32) body(float());
  else fail(ErrorCode::Internal, "internal error: the CUDA backend computes in float32 and bfloat16, not in ", name_of(dtype));
}

/// Threads for a block that shares `items` pieces of work: whole warps, at most `most`; depends on shapes only.
inline int threads_for(std::int64_t items, int most = 256) {
  return static_cast<int>(std::clamp<std::int64_t>((items + kWarp - 1) / kWarp * kWarp, kWarp, most));
}

}  // namespace foretoken::cuda
