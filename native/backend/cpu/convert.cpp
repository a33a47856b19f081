#include "backend/cpu/convert.h"

#include <cmath>
#include <cstring>

#include "backend/cpu/operations.h"

namespace foretoken::cpu {

namespace {

/// A float32 from which narrower types round as they would from `value` itself: where float32 is too narrow, the
/// neighbour with an odd last bit, which is never halfway between two narrower numbers.
float rounded_to_odd(double value) {
  const float nearest = static_cast<float>(value);
  if (static_cast<double>(nearest) == value || std::isnan(value)) return nearest;
  std::uint32_t bits = std::bit_cast<std::uint32_t>(nearest);
  if (std::abs(static_cast<double>(nearest)) > std::abs(value)) --bits;
  return std::bit_cast<float>(bits | 1u);
}

template <typename From, typename To>
To convert_one(From x) {
  if constexpr (std::is_same_v<From, double> && sizeof(To) == 2) return To(rounded_to_odd(x));
  else if constexpr (std::is_same_v<From, double> || std::is_same_v<From, float>) return static_cast<To>(x);
  else if constexpr (std::is_same_v<To, double>) return static_cast<double>(static_cast<float>(x));
  else return static_cast<To>(static_cast<float>(x));
}

template <typename From, typename To>
void convert_row(const void* from, void* to, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i)
    static_cast<To*>(to)[i] = convert_one<From, To>(static_cast<const From*>(from)[i]);
}

template <typename From>
ConvertRow converter_from(DType to) {
  switch (to) {
    case DType::Float64: return convert_row<From, double>;
    case DType::Float32: return convert_row<From, float>;
    case DType::BFloat16: return convert_row<From, BFloat16>;
    case DType::Float16: return convert_row<From, Float16>;
  }
  return nullptr;
}

}  // namespace

ConvertRow converter(DType from, DType to) {
  switch (from) {
    case DType::Float64: return converter_from<double>(to);
    case DType::Float32: return converter_from<float>(to);
    case DType::BFloat16: return converter_from<BFloat16>(to);
    case DType::Float16: return converter_from<Float16>(to);
  }
  return nullptr;
}

void CpuBackend::convert(View from, View to) {
  const ConvertRow plain = converter(from.dtype, to.dtype);
  const bool contiguous = from.contiguous() && to.contiguous();
  for_elements(from.rows, from.cols, contiguous, [&](std::int64_t row, std::int64_t begin, std::int64_t count) {
    const auto at = [&](const View& x) {
      return static_cast<std::byte*>(x.data) + static_cast<std::size_t>(row * x.stride + begin) * size_of(x.dtype);
    };
    if (from.dtype == to.dtype) std::memcpy(at(to), at(from), static_cast<std::size_t>(count) * size_of(to.dtype));
    else if (from.dtype == DType::Float32 && to.dtype == DType::BFloat16)
      kernels16_.narrow(reinterpret_cast<const float*>(at(from)), at(to), count);
    else if (from.dtype == DType::BFloat16 && to.dtype == DType::Float32)
      kernels16_.widen(at(from), reinterpret_cast<float*>(at(to)), count);
    else plain(at(from), at(to), count);
  });
}

}  // namespace foretoken::cpu
