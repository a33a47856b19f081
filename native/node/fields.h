#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "node/napi_setup.h"

namespace foretoken {

/// The fields of a plain JavaScript object, read into C++ values that already hold the defaults.
///
/// A field that is absent, undefined or null leaves its target alone; one of another type throws InvalidArgument with
/// its name. Ranges and meaning have been checked in lib/engine/; this is the second line, which keeps memory safe.
/// Arrays are copied: JavaScript may change its own while the engine computes.
class Fields {
 public:
  /// `what` names the object in messages.
  Fields(const Napi::Value& value, const char* what);

  void read(const char* name, bool& into) const;
  void read(const char* name, std::int32_t& into) const;
  void read(const char* name, std::int64_t& into) const;
  void read(const char* name, std::uint64_t& into) const;  // a BigInt
  void read(const char* name, double& into) const;
  void read(const char* name, std::optional<bool>& into) const;
  void read(const char* name, std::optional<double>& into) const;
  void read(const char* name, std::string& into) const;
  void read(const char* name, std::vector<std::int32_t>& into) const;   // Int32Array
  void read(const char* name, std::vector<std::uint32_t>& into) const;  // Uint32Array
  void read(const char* name, std::vector<float>& into) const;          // Float32Array
  void read(const char* name, std::vector<double>& into) const;         // Float64Array
  void read(const char* name, std::vector<std::uint8_t>& into) const;   // Uint8Array
  void read(const char* name, std::vector<std::string>& into) const;    // an Array of Uint8Array

  /// One of the names, in the order of the enum's values.
  template <typename Enum, std::size_t count>
  void read(const char* name, Enum& into, const char* const (&names)[count]) const {
    std::string text;
    read(name, text);
    if (text.empty()) return;
    for (std::size_t i = 0; i < count; ++i) {
      if (text != names[i]) continue;
      into = static_cast<Enum>(i);
      return;
    }
    refuse(name, "is not one of the known names");
  }

  bool has(const char* name) const;
  Napi::Value at(const char* name) const { return object_.Get(name); }
  [[noreturn]] void refuse(const char* name, const char* reason) const;

 private:
  double integer(const char* name, double lowest, double highest) const;
  template <typename T>
  void copy(const char* name, napi_typedarray_type type, const char* expected, std::vector<T>& into) const;

  Napi::Object object_;
  const char* what_;
};

}  // namespace foretoken
