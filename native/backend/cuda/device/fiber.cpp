#include "backend/cuda/device/fiber.h"

#include <sys/mman.h>

#include <cstdint>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#include "core/error.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace foretoken::cuda {

#if defined(__x86_64__)

// What the System V convention lets a called function expect unchanged is pushed on the stack that is left and popped
// from the one that is entered: forty times as fast as swapcontext, which asks the kernel for the signal mask.
extern "C" void foretoken_switch_stack(void** left, void* entered);
asm(R"(
.text
.type foretoken_switch_stack, @function
foretoken_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size foretoken_switch_stack, . - foretoken_switch_stack
.type foretoken_begin_fiber, @function
foretoken_begin_fiber:
  movq %rbx, %rdi
  callq *%r12
.size foretoken_begin_fiber, . - foretoken_begin_fiber
)");
extern "C" void foretoken_begin_fiber();

struct Fiber::Platform {
  void* fiber = nullptr;   // stack pointers of the two sides
  void* caller = nullptr;

  void prepare(std::byte* stack, std::size_t bytes, Fiber* self, void (*entry)(Fiber*)) {
    // The frame that foretoken_switch_stack pops: r15, r14, r13, r12, rbx, rbp and the return address, after which the
    // stack is aligned to 16 bytes.
    auto* top = reinterpret_cast<std::uint64_t*>(stack + bytes) - 9;
    top[0] = top[1] = top[2] = top[5] = top[7] = top[8] = 0;
    top[3] = reinterpret_cast<std::uint64_t>(entry);
    top[4] = reinterpret_cast<std::uint64_t>(self);
    top[6] = reinterpret_cast<std::uint64_t>(&foretoken_begin_fiber);
    fiber = top;
  }
  void enter() { foretoken_switch_stack(&caller, fiber); }
  void leave() { foretoken_switch_stack(&fiber, caller); }
};

#else

struct Fiber::Platform {
  ucontext_t fiber, caller;

  static void begin(unsigned self_high, unsigned self_low, unsigned entry_high, unsigned entry_low) {
    const auto pointer = [](unsigned high, unsigned low) { return std::uint64_t{high} << 32 | low; };
    reinterpret_cast<void (*)(Fiber*)>(pointer(entry_high, entry_low))(
        reinterpret_cast<Fiber*>(pointer(self_high, self_low)));
  }
  void prepare(std::byte* stack, std::size_t bytes, Fiber* self, void (*entry)(Fiber*)) {
    getcontext(&fiber);
    fiber.uc_stack.ss_sp = stack;
    fiber.uc_stack.ss_size = bytes;
    fiber.uc_link = nullptr;
    const auto s = reinterpret_cast<std::uint64_t>(self), e = reinterpret_cast<std::uint64_t>(entry);
    makecontext(&fiber, reinterpret_cast<void (*)()>(&begin), 4, static_cast<unsigned>(s >> 32),
                static_cast<unsigned>(s), static_cast<unsigned>(e >> 32), static_cast<unsigned>(e));
  }
  void enter() { swapcontext(&caller, &fiber); }
  void leave() { swapcontext(&fiber, &caller); }
};

#endif

Fiber::Fiber(std::size_t stack_bytes) : platform_(new Platform), stack_bytes_(stack_bytes) {
  void* memory = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    delete platform_;
    fail(ErrorCode::OutOfMemory, "no memory for the stack of an emulated CUDA thread");
  }
  stack_ = static_cast<std::byte*>(memory);
  mprotect(stack_, 4096, PROT_NONE);  // an overflow faults instead of writing into a neighbour
  platform_->prepare(stack_, stack_bytes_, this, &Fiber::main);
}

Fiber::~Fiber() {
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(stack_, stack_bytes_);  // a body that was given up leaves the marks of its frames
#endif
  munmap(stack_, stack_bytes_);
  delete platform_;
}

void Fiber::start(void (*body)(void*), void* argument) {
  body_ = body;
  argument_ = argument;
  finished_ = false;
}

void Fiber::resume() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&caller_fake_stack_, stack_, stack_bytes_);
  platform_->enter();
  __sanitizer_finish_switch_fiber(caller_fake_stack_, nullptr, nullptr);
#else
  platform_->enter();
#endif
}

void Fiber::yield() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&own_fake_stack_, caller_stack_, caller_stack_bytes_);
  platform_->leave();
  __sanitizer_finish_switch_fiber(own_fake_stack_, &caller_stack_, &caller_stack_bytes_);
#else
  platform_->leave();
#endif
}

// Never returns: a finished fiber waits for its next body, which spares setting up a stack for each.
void Fiber::main(Fiber* self) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &self->caller_stack_, &self->caller_stack_bytes_);
#endif
  for (;;) {
    self->body_(self->argument_);
    self->finished_ = true;
    self->yield();
  }
}

}  // namespace foretoken::cuda
