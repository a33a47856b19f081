#pragma once

#include <cstddef>

namespace foretoken::cuda {

/// A function with a stack of its own that can be left in the middle and entered again, all on one thread of the
/// operating system: a thread of an emulated block.
class Fiber {
 public:
  explicit Fiber(std::size_t stack_bytes);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// The next `resume` calls body(argument). Only after the last body has returned.
  void start(void (*body)(void*), void* argument);
  /// Runs the body until it yields or returns.
  void resume();
  /// Called by the body: back to where `resume` was called.
  void yield();
  bool finished() const { return finished_; }

 private:
  static void main(Fiber* self);

  struct Platform;
  Platform* platform_;
  std::byte* stack_ = nullptr;
  std::size_t stack_bytes_;
  void (*body_)(void*) = nullptr;
  void* argument_ = nullptr;
  bool finished_ = true;
  // AddressSanitizer wants to know on which stack the program runs.
  void* own_fake_stack_ = nullptr;
  void* caller_fake_stack_ = nullptr;
  const void* caller_stack_ = nullptr;
  std::size_t caller_stack_bytes_ = 0;
};

}  // namespace foretoken::cuda
