#include "backend/cuda_library.h"
#include "core/error.h"
#include "test/cuda/emulated.h"
#include "test/files.h"
#include "test/test.h"

namespace foretoken::test {
namespace {

TEST("a CUDA library is opened for the device that was asked for") {
  CHECK_EQ(tiny_engine(tiny_models()[0], emulated())->device(), "cuda:0");
  CHECK_EQ(tiny_engine(tiny_models()[0], emulated(DType::Float32, "auto"))->device(), "cuda:0");
  const auto second = tiny_engine(tiny_models()[0], emulated(DType::BFloat16, "cuda:1"));
  CHECK_EQ(second->device(), "cuda:1");
  CHECK(contains(second->device_description(), "CUDA kernels emulated on the host, bfloat16"));
}

TEST("a device that is not there, or that no name means, is refused by name") {
  const auto open = [](const char* device) { return tiny_engine(tiny_models()[0], emulated(DType::Float32, device)); };
  CHECK_FAILS(ErrorCode::DeviceUnavailable, open("cuda:2"));
  CHECK(contains(message_of([&] { open("cuda:2"); }), "there is no device cuda:2"));
  for (const char* name : {"cuda:", "cuda:x", "cuda:-1", "cuda:1x", "cuda1", "gpu"}) {
    CHECK_FAILS(ErrorCode::InvalidArgument, open(name));
    CHECK(contains(message_of([&] { open(name); }), name));
  }
}

TEST("without a CUDA library auto is the CPU, and cuda is refused") {
  EngineOptions options;
  CHECK_EQ(tiny_engine(tiny_models()[0], options)->device(), "cpu");
  options.device = "cuda";
  CHECK_FAILS(ErrorCode::DeviceUnavailable, tiny_engine(tiny_models()[0], options));
}

TEST("what is not a CUDA library is refused with the reason") {
  const TemporaryDirectory folder;
  const std::string text = (folder / "text.so").string();
  write_file(text, "I am text");
  CHECK_FAILS(ErrorCode::DeviceUnavailable, make_cuda_backend(text, 0, DType::Float32));
  CHECK(contains(message_of([&] { make_cuda_backend(text, 0, DType::Float32); }), text));
  CHECK_FAILS(ErrorCode::DeviceUnavailable, make_cuda_backend("libc.so.6", 0, DType::Float32));
  CHECK(contains(message_of([&] { make_cuda_backend("libc.so.6", 0, DType::Float32); }), "is not foretoken's CUDA library"));
}

TEST("an error inside a CUDA library arrives with its code and text, and the backend goes on working") {
  CHECK_FAILS(ErrorCode::InvalidArgument, make_cuda_backend(emulated_library(), 0, DType::Float16));
  const auto backend = make_cuda_backend(emulated_library(), 0, DType::Float32);
  AttentionShape shape;
  shape.heads = shape.kv_heads = 1;
  shape.head_dim = 600;
  const auto rotate = [&] {
    const View none;
    backend->rope_forward(none, none, none, 1e-6, nullptr, none, shape, {}, nullptr, none, none);
  };
  CHECK_FAILS(ErrorCode::UnsupportedConfig, (rotate(), 0));
  CHECK(contains(message_of(rotate), "600"));
  CHECK_FAILS(ErrorCode::OutOfMemory, backend->allocate(std::size_t{1} << 60));
  const Buffer buffer(*backend, sizeof(float));
  const float sent = 1.5f;
  float received = 0;
  backend->upload(buffer.data(), &sent, sizeof sent);
  backend->download(&received, buffer.data(), sizeof received);
  CHECK_EQ(received, sent);
}

}  // namespace
}  // namespace foretoken::test
