#include "node/machine.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "backend/cpu/isa.h"
#include "backend/cpu/matmul.h"
#include "core/philox.h"
#include "core/thread_team.h"
#include "engine/memory.h"
#include "node/arguments.h"
#include "node/failure.h"
#include "node/js_error.h"

namespace foretoken {

namespace {

Napi::Value machine(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto available = Napi::Array::New(env);
  for (const cpu::Isa isa : cpu::kAllIsas)
    if (cpu::isa_available(isa)) available.Set(available.Length(), cpu::name_of(isa));
  auto object = Napi::Object::New(env);
  object.Set("instructionSet", cpu::name_of(cpu::selected_isa()));
  object.Set("instructionSets", available);
  object.Set("threads", available_threads());
  object.Set("availableMemory", static_cast<double>(available_memory()));
  return object;
}

std::vector<float> random_floats(std::int64_t count, std::uint32_t stream) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = uniform_float(random_words(1, RandomUse::Initialisation, stream, i)[0]) - 0.5f;
  return values;
}

/// FLOP/s of a large matrix product (M 512, K 1024, N 1024): the best of several stretches, which on a shared machine is
/// the least disturbed.
double product_speed(DType dtype, int threads) {
  using Clock = std::chrono::steady_clock;
  constexpr std::int64_t M = 512, K = 1024, N = 1024;
  constexpr int stretches = 8;
  constexpr std::chrono::duration<double> stretch(0.1);

  ThreadTeam team(threads);
  const std::vector<float> weights = random_floats(K * N, 1), rows = random_floats(M * K, 2);
  std::vector<BFloat16> narrow(rows.size());
  std::transform(rows.begin(), rows.end(), narrow.begin(), [](float x) { return BFloat16(x); });
  cpu::PackedMatrix packed(cpu::matmul_for(cpu::selected_isa()), dtype, K, N);
  cpu::pack(team, packed, {weights.data(), K, DType::Float32}, true);
  const void* left = dtype == DType::Float32 ? static_cast<const void*>(rows.data()) : narrow.data();
  std::vector<float> out(M * N);
  const auto multiply = [&] { cpu::multiply(team, {left, K, dtype}, M, packed, {}, {out.data(), N, DType::Float32}); };

  multiply();
  double best = 0;
  for (int i = 0; i < stretches; ++i) {
    int calls = 0;
    const auto begin = Clock::now();
    std::chrono::duration<double> time{};
    do {
      multiply();
      ++calls;
      time = Clock::now() - begin;
    } while (time < stretch);
    best = std::max(best, calls / time.count());
  }
  return best * 2 * M * K * N;
}

Napi::Value measure_product(const Napi::CallbackInfo& info) {
  const DType dtype = read_string(info[0], "dtype") == "bfloat16" ? DType::BFloat16 : DType::Float32;
  const auto threads = static_cast<int>(read_number(info[1], "threads"));
  return Napi::Number::New(info.Env(), product_speed(dtype, threads));
}

template <Napi::Value (*function)(const Napi::CallbackInfo&)>
Napi::Value guarded(const Napi::CallbackInfo& info) {
  try {
    return function(info);
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    throw to_js_error(info.Env(), current_failure());
  }
}

}  // namespace

void export_machine(Napi::Env env, Napi::Object exports) {
  exports.Set("machine", Napi::Function::New<guarded<machine>>(env, "machine"));
  exports.Set("productSpeed", Napi::Function::New<guarded<measure_product>>(env, "productSpeed"));
}

}  // namespace foretoken
