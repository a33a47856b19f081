#pragma once

#include <cstdint>
#include <map>
#include <memory>

#include "backend/backend.h"
#include "backend/cuda/device/device.h"

namespace foretoken::cuda {

/// Sequences of operations that a device has recorded, by the caller's key.
///
/// The first time a sequence just runs: libraries choose their algorithms then, scratch memory grows and kernels are
/// loaded, none of which may happen while a device records. The second time it is recorded. A release of any memory makes
/// everything useless, because nobody knows which recordings used it.
class Recordings {
 public:
  explicit Recordings(Device& device) : device_(device) {}

  Sequence begin(std::uint64_t key);
  bool end(bool complete);
  std::size_t bytes() const;
  /// Gives back what a release has made useless.
  void forget_stale();

  static constexpr std::size_t kMost = 64;  // kept; the one that was used longest ago makes room

 private:
  struct Entry {
    std::unique_ptr<Recording> recording;  // null: it has run once
    bool refused = false;                  // it could not be recorded
    std::uint64_t used = 0;
  };

  Device& device_;
  std::map<std::uint64_t, Entry> entries_;
  std::uint64_t releases_ = 0;  // of the device, as of the entries
  std::uint64_t uses_ = 0;
  Entry* open_ = nullptr;       // being recorded
};

}  // namespace foretoken::cuda
