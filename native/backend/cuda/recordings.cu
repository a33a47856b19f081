#include "backend/cuda/recordings.h"

#include <algorithm>
#include <utility>

#include "core/error.h"

namespace foretoken::cuda {

void Recordings::forget_stale() {
  if (open_ || releases_ == device_.releases()) return;
  entries_.clear();
  releases_ = device_.releases();
}

Sequence Recordings::begin(std::uint64_t key) {
  invariant(!open_, "sequences do not nest");
  device_.enter();
  forget_stale();
  const auto [place, fresh] = entries_.try_emplace(key);
  Entry& entry = place->second;
  entry.used = ++uses_;
  if (fresh) {
    if (entries_.size() > kMost)
      entries_.erase(std::min_element(entries_.begin(), entries_.end(),
                                      [](const auto& a, const auto& b) { return a.second.used < b.second.used; }));
    return Sequence::Run;
  }
  if (entry.recording) {
    entry.recording->queue();
    return Sequence::Done;
  }
  if (entry.refused) return Sequence::Run;
  if (!device_.begin_recording()) {
    entry.refused = true;
    return Sequence::Run;
  }
  open_ = &entry;
  return Sequence::Record;
}

bool Recordings::end(bool complete) {
  invariant(open_ != nullptr, "a sequence ends after it has begun");
  Entry& entry = *std::exchange(open_, nullptr);
  std::unique_ptr<Recording> recording = device_.end_recording();
  if (!complete || !recording) {
    entry.refused = true;
    return false;
  }
  entry.recording = std::move(recording);
  entry.recording->queue();
  return true;
}

std::size_t Recordings::bytes() const {
  std::size_t sum = 0;
  for (const auto& [key, entry] : entries_)
    if (entry.recording) sum += entry.recording->bytes();
  return sum;
}

}  // namespace foretoken::cuda
