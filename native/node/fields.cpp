#include "node/fields.h"

#include <cmath>

#include "core/error.h"

namespace foretoken {

Fields::Fields(const Napi::Value& value, const char* what) : what_(what) {
  if (!value.IsObject()) fail(ErrorCode::InvalidArgument, what, " must be an object");
  object_ = value.As<Napi::Object>();
}

void Fields::refuse(const char* name, const char* reason) const {
  fail(ErrorCode::InvalidArgument, what_, ".", name, " ", reason);
}

bool Fields::has(const char* name) const {
  const Napi::Value value = at(name);
  return !value.IsUndefined() && !value.IsNull();
}

double Fields::integer(const char* name, double lowest, double highest) const {
  const Napi::Value value = at(name);
  if (!value.IsNumber()) refuse(name, "must be a number");
  const double number = value.As<Napi::Number>().DoubleValue();
  // Written so that NaN is refused too.
  if (!(number >= lowest && number <= highest) || number != std::floor(number)) refuse(name, "must be an integer");
  return number;
}

void Fields::read(const char* name, bool& into) const {
  if (!has(name)) return;
  const Napi::Value value = at(name);
  if (!value.IsBoolean()) refuse(name, "must be true or false");
  into = value.As<Napi::Boolean>();
}

void Fields::read(const char* name, std::int32_t& into) const {
  if (has(name)) into = static_cast<std::int32_t>(integer(name, -2147483648.0, 2147483647.0));
}

void Fields::read(const char* name, std::int64_t& into) const {
  constexpr double kSafe = 9007199254740991.0;  // Number.MAX_SAFE_INTEGER
  if (has(name)) into = static_cast<std::int64_t>(integer(name, -kSafe, kSafe));
}

void Fields::read(const char* name, std::uint64_t& into) const {
  if (!has(name)) return;
  const Napi::Value value = at(name);
  if (!value.IsBigInt()) refuse(name, "must be a BigInt");
  bool lossless = false;
  const std::uint64_t number = value.As<Napi::BigInt>().Uint64Value(&lossless);
  if (!lossless) refuse(name, "must be within 64 unsigned bits");
  into = number;
}

void Fields::read(const char* name, double& into) const {
  if (!has(name)) return;
  const Napi::Value value = at(name);
  if (!value.IsNumber()) refuse(name, "must be a number");
  into = value.As<Napi::Number>().DoubleValue();
}

void Fields::read(const char* name, std::optional<bool>& into) const {
  if (!has(name)) return;
  bool value = false;
  read(name, value);
  into = value;
}

void Fields::read(const char* name, std::optional<double>& into) const {
  if (!has(name)) return;
  double value = 0;
  read(name, value);
  into = value;
}

void Fields::read(const char* name, std::string& into) const {
  if (!has(name)) return;
  const Napi::Value value = at(name);
  if (!value.IsString()) refuse(name, "must be a string");
  into = value.As<Napi::String>().Utf8Value();
}

template <typename T>
void Fields::copy(const char* name, napi_typedarray_type type, const char* expected, std::vector<T>& into) const {
  if (!has(name)) return;
  const Napi::Value value = at(name);
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != type)
    fail(ErrorCode::InvalidArgument, what_, ".", name, " must be ", expected);
  const auto array = value.As<Napi::TypedArrayOf<T>>();  // its data begins at byteOffset
  into.assign(array.Data(), array.Data() + array.ElementLength());
}

void Fields::read(const char* name, std::vector<std::int32_t>& into) const {
  copy(name, napi_int32_array, "an Int32Array", into);
}
void Fields::read(const char* name, std::vector<std::uint32_t>& into) const {
  copy(name, napi_uint32_array, "a Uint32Array", into);
}
void Fields::read(const char* name, std::vector<float>& into) const {
  copy(name, napi_float32_array, "a Float32Array", into);
}
void Fields::read(const char* name, std::vector<double>& into) const {
  copy(name, napi_float64_array, "a Float64Array", into);
}
void Fields::read(const char* name, std::vector<std::uint8_t>& into) const {
  copy(name, napi_uint8_array, "a Uint8Array", into);
}

void Fields::read(const char* name, std::vector<std::string>& into) const {
  if (!has(name)) return;
  const Napi::Value value = at(name);
  if (!value.IsArray()) refuse(name, "must be an array of Uint8Array");
  const auto array = value.As<Napi::Array>();
  into.clear();
  for (std::uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value item = array[i];
    if (!item.IsTypedArray() || item.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array)
      refuse(name, "must be an array of Uint8Array");
    const auto bytes = item.As<Napi::Uint8Array>();
    into.emplace_back(bytes.Data(), bytes.Data() + bytes.ElementLength());
  }
}

}  // namespace foretoken
