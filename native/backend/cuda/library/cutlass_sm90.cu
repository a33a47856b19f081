#include "backend/cuda/library/cutlass.h"

// Products by CUTLASS's collective kernels for Hopper: TMA loads, wgmma, one persistent block per multiprocessor. Compiled
// for sm_90a, and with NDEBUG, or the compiler makes every wgmma wait for the one before. Without CUTLASS's headers this
// file is empty, and other products are used.
#if __has_include(<cutlass/cutlass.h>)

#include <cutlass/cutlass.h>
#include <cutlass/epilogue/collective/collective_builder.hpp>
#include <cutlass/epilogue/fusion/sm90_callbacks_tma_warpspecialized.hpp>
#include <cutlass/gemm/collective/collective_builder.hpp>
#include <cutlass/gemm/device/gemm_universal_adapter.h>
#include <cutlass/gemm/kernel/gemm_universal.hpp>
#include <cutlass/kernel_hardware_info.h>

#include <map>
#include <tuple>
#include <type_traits>

#include "backend/cuda/device/check.h"
#include "backend/cuda/order_probe.h"

namespace foretoken::cuda {

namespace {

namespace fusion = cutlass::epilogue::fusion;
using cute::_1;
using cute::_128;
using cute::_2;
using cute::_256;
using cute::_64;
using Bfloat16 = cutlass::bfloat16_t;
using Kind = Product::Kind;

/// Tiles for many rows, and for as few as a step of decoding has.
struct Large {
  using Tile = cute::Shape<_128, _256, _64>;
  using Cluster = cute::Shape<_2, _1, _1>;
  using Loop = cutlass::gemm::KernelTmaWarpSpecializedCooperative;
  using Epilogue = cutlass::epilogue::TmaWarpSpecializedCooperative;
};
struct Medium {
  using Tile = cute::Shape<_128, _128, _64>;
  using Cluster = cute::Shape<_2, _1, _1>;
  using Loop = cutlass::gemm::KernelTmaWarpSpecializedPingpong;
  using Epilogue = cutlass::epilogue::TmaWarpSpecialized;
};
struct Small {
  using Tile = cute::Shape<_64, _64, _128>;
  using Cluster = cute::Shape<_1, _1, _1>;
  using Loop = cutlass::gemm::KernelTmaWarpSpecializedPingpong;
  using Epilogue = cutlass::epilogue::TmaWarpSpecialized;
};

// What happens to a sum: bias + beta · residual + sum, bfloat16 results without a residual.
template <typename Y>
constexpr auto kRound = cutlass::FloatRoundStyle::round_to_nearest;
template <typename Y>
using Source = std::conditional_t<std::is_same_v<Y, float>, float, void>;
template <typename Y>
using Scaled = fusion::Sm90LinearCombination<float, float, float, float, kRound<float>>;
template <typename Y>
using Sum = std::conditional_t<std::is_same_v<Y, float>, Scaled<Y>, fusion::Sm90AccFetch>;
template <typename Y, typename Tile>
using Biased = fusion::Sm90EVT<fusion::Sm90Compute<cutlass::plus, Y, float, kRound<Y>>,
                               fusion::Sm90RowBroadcast<0, Tile, float, float, cute::Stride<cute::_0, _1, cute::_0>, 1>, Sum<Y>>;
template <typename Y>
using Unbiased = fusion::LinearCombination<Y, float, Source<Y>, float>;

template <Kind kind, typename Y, typename Size>
struct Kernel {
  static constexpr bool biased = kind == Kind::Forward;
  using LayoutA = std::conditional_t<kind == Kind::BackwardWeight, cutlass::layout::ColumnMajor, cutlass::layout::RowMajor>;
  using LayoutB = std::conditional_t<kind == Kind::Forward, cutlass::layout::ColumnMajor, cutlass::layout::RowMajor>;
  using LayoutC = cutlass::layout::RowMajor;
  static constexpr int kAlignment = 8, kAlignmentOut = 16 / static_cast<int>(sizeof(Y));

  using Epilogue = typename cutlass::epilogue::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, typename Size::Tile, typename Size::Cluster,
      cutlass::epilogue::collective::EpilogueTileAuto, float, float, Source<Y>, LayoutC, kAlignmentOut, Y, LayoutC, kAlignmentOut,
      typename Size::Epilogue, std::conditional_t<biased, Biased<Y, typename Size::Tile>, Unbiased<Y>>>::CollectiveOp;
  using Mainloop = typename cutlass::gemm::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Bfloat16, LayoutA, kAlignment, Bfloat16, LayoutB, kAlignment, float,
      typename Size::Tile, typename Size::Cluster,
      cutlass::gemm::collective::StageCountAutoCarveout<static_cast<int>(sizeof(typename Epilogue::SharedStorage))>,
      typename Size::Loop>::CollectiveOp;
  using Gemm = cutlass::gemm::device::GemmUniversalAdapter<
      cutlass::gemm::kernel::GemmUniversal<cute::Shape<int, int, int, int>, Mainloop, Epilogue>>;

  static bool queue(const Product& p, const cutlass::KernelHardwareInfo& hardware, cudaStream_t stream) {
    using Base = typename Gemm::GemmKernel;
    typename Gemm::Arguments arguments{};
    arguments.mode = cutlass::gemm::GemmUniversalMode::kGemm;
    arguments.problem_shape = {static_cast<int>(p.out.rows), static_cast<int>(p.out.cols), static_cast<int>(p.depth()), 1};
    arguments.mainloop.ptr_A = p.a.as<Bfloat16>();
    arguments.mainloop.ptr_B = p.b.as<Bfloat16>();
    set_stride(arguments.mainloop.dA, p.a.stride);
    set_stride(arguments.mainloop.dB, p.b.stride);
    arguments.epilogue.ptr_D = p.out.as<Y>();
    set_stride(arguments.epilogue.dD, p.out.stride);
    if constexpr (std::is_same_v<Y, float>) {
      const View& c = p.residual ? p.residual : p.out;
      arguments.epilogue.ptr_C = c.as<float>();
      set_stride(arguments.epilogue.dC, c.stride);
    }
    const float beta = p.residual ? 1.0f : 0.0f;
    auto& thread = arguments.epilogue.thread;
    if constexpr (biased && std::is_same_v<Y, float>) {
      // In the order of Sm90LinearCombination: beta, the residual, then alpha and the sum.
      thread = {{p.bias.as<float>(), 0.0f, {}}, {{{beta}}, {}, {{{1.0f}}, {}, {}}, {}}, {}};
    } else if constexpr (biased) {
      thread = {{p.bias.as<float>(), 0.0f, {}}, {}, {}};
    } else {
      thread.alpha = 1;
      thread.beta = beta;
    }
    arguments.hw_info = hardware;
    static_assert(std::is_same_v<typename Base::ElementAccumulator, float>);
    if (Gemm::can_implement(arguments) != cutlass::Status::kSuccess || Gemm::get_workspace_size(arguments) != 0) return false;
    Gemm gemm;
    if (gemm.initialize(arguments, nullptr, stream) != cutlass::Status::kSuccess || gemm.run(stream) != cutlass::Status::kSuccess) {
      check(cudaGetLastError(), "CUTLASS");
      fail(ErrorCode::Internal, "CUTLASS refused a product that it had accepted");
    }
    return true;
  }

 private:
  /// Of the three strides one is dynamic.
  template <typename Stride>
  static void set_stride(Stride& stride, std::int64_t elements) {
    if constexpr (std::is_integral_v<std::remove_reference_t<decltype(cute::get<0>(stride))>>) cute::get<0>(stride) = elements;
    else cute::get<1>(stride) = elements;
  }
};

bool aligned(const View& x) {
  return !x || (reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0 && static_cast<std::size_t>(x.stride) * size_of(x.dtype) % 16 == 0);
}

class Cutlass final : public MatmulLibrary {
 public:
  explicit Cutlass(Device& device, int index) : device_(device) {
    hardware_.device_id = index;
    hardware_.sm_count = device.multiprocessors();
  }
  std::string name() const override { return "CUTLASS"; }
  std::size_t workspace_bytes() const override { return 0; }

  bool multiply(const Product& p) override {
    const bool narrow = p.out.dtype == DType::BFloat16;
    if (p.a.dtype != DType::BFloat16 || (narrow && p.residual)) return false;
    if (!aligned(p.a) || !aligned(p.b) || !aligned(p.out) || !aligned(p.residual)) return false;
    device_.enter();
    switch (p.kind) {
      case Kind::Forward: return narrow ? forward<Bfloat16>(p) : forward<float>(p);
      case Kind::BackwardInput: return narrow ? queue<Kind::BackwardInput, Bfloat16, Large>(p) : queue<Kind::BackwardInput, float, Large>(p);
      case Kind::BackwardWeight: return !narrow && queue<Kind::BackwardWeight, float, Medium>(p);
    }
    return false;
  }

 private:
  template <Kind kind, typename Y, typename Size>
  bool queue(const Product& p) {
    return Kernel<kind, Y, Size>::queue(p, hardware_, static_cast<cudaStream_t>(device_.stream()));
  }

  /// Small tiles where large ones would leave multiprocessors idle; both add up a row in the same order, which is
  /// checked once for each shape.
  template <typename Y>
  bool forward(const Product& p) {
    const std::int64_t tiles = (p.out.rows + 127) / 128 * ((p.out.cols + 255) / 256);
    if (tiles < hardware_.sm_count && small_is_exact<Y>(p)) return queue<Kind::Forward, Y, Small>(p);
    return queue<Kind::Forward, Y, Large>(p);
  }
  template <typename Y>
  bool small_is_exact(const Product& p) {
    const auto [place, fresh] = small_is_exact_.try_emplace({p.depth(), p.out.dtype, static_cast<bool>(p.residual)});
    if (fresh) try {
      const OrderProbe probe(device_, p);
      place->second = queue<Kind::Forward, Y, Large>(probe.product(0)) && queue<Kind::Forward, Y, Small>(probe.product(1)) && probe.equal();
    } catch (const Error& error) {
      if (error.code() != ErrorCode::OutOfMemory) throw;  // no room to look: large tiles it is
    }
    return place->second;
  }

  Device& device_;
  cutlass::KernelHardwareInfo hardware_;
  std::map<std::tuple<std::int64_t, DType, bool>, bool> small_is_exact_;  // by depth, result and residual
};

}  // namespace

std::unique_ptr<MatmulLibrary> open_cutlass(Device& device) {
  device.enter();
  int index = 0, major = 0, minor = 0;
  check(cudaGetDevice(&index), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index), "cudaDeviceGetAttribute");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, index), "cudaDeviceGetAttribute");
  if (major != 9 || minor != 0) return nullptr;
  return std::make_unique<Cutlass>(device, index);
}

}  // namespace foretoken::cuda

#else

namespace foretoken::cuda {

std::unique_ptr<MatmulLibrary> open_cutlass(Device&) { return nullptr; }

}  // namespace foretoken::cuda

#endif
