#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace foretoken {

/// A run of tokens whose first token follows the last token of its parent.
struct Segment {
  std::int32_t parent = -1;         // index of the parent segment, -1 for a root
  std::int64_t begin = 0;           // its first token in the forest's token array
  std::int32_t length = 0;
  std::int32_t start_position = 0;  // depth of its first token: the length of everything above it
};

/// Token segments, each with at most one parent; a token attends to its own segment so far and to all its ancestors.
class TokenForest {
 public:
  /// Appends a segment below `parent` (-1 for a root) and returns its index. Errors: unknown parent, no tokens.
  std::int32_t add(std::int32_t parent, std::span<const std::int32_t> tokens);

  const std::vector<std::int32_t>& tokens() const { return tokens_; }  // (N) in the order of adding
  const std::vector<Segment>& segments() const { return segments_; }   // (S); a parent's index is below its children's
  std::int64_t size() const { return static_cast<std::int64_t>(tokens_.size()); }

  /// The segment that token `index` belongs to.
  std::int32_t segment_of(std::int64_t index) const;

  /// Refuses token ids outside [0, vocabulary) and paths longer than `longest_path`, naming the segment.
  void validate(std::int64_t vocabulary, std::int64_t longest_path) const;

 private:
  std::vector<std::int32_t> tokens_;
  std::vector<Segment> segments_;
};

}  // namespace foretoken
