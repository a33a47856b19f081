#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <algorithm>
#include <string>

#include "backend/cuda/device/device.h"

// Which GPUs can be used, asked of the driver itself: it is opened by name, so that a machine without one can load this
// library, and every step that fails has a sentence of its own. The few functions are declared here as NVIDIA's Driver
// API documents them.
namespace foretoken::cuda {

namespace {

// Every driver of a major version of CUDA runs what a compiler of that major version made for its GPU.
constexpr int kOldestCuda = CUDART_VERSION / 1000 * 1000;
constexpr const char* kOldestDriver = CUDART_VERSION >= 13000 ? "580" : "525";
constexpr int kOldestCapability = 80;                         // 8.0, the first with bfloat16 tensor cores
constexpr std::size_t kLeastMemory = std::size_t{512} << 20;  // a context, kernels and the smallest models

enum Attribute : int { kCapabilityMajor = 75, kCapabilityMinor = 76 };

class Driver {
 public:
  Driver() : library_(dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL)) {
    if (!library_) {
      problem_ = "there is no NVIDIA driver here (" + loader_says() + "); install version " + kOldestDriver +
                 " or newer, or use device \"cpu\"";
      return;
    }
    find(init, "cuInit");
    find(version, "cuDriverGetVersion");
    find(error_text, "cuGetErrorString");
    find(count, "cuDeviceGetCount");
    find(device, "cuDeviceGet");
    find(name, "cuDeviceGetName");
    find(total_memory, "cuDeviceTotalMem_v2");
    find(attribute, "cuDeviceGetAttribute");
    find(retain_context, "cuDevicePrimaryCtxRetain");
    find(push_context, "cuCtxPushCurrent_v2");
    find(pop_context, "cuCtxPopCurrent_v2");
    find(memory, "cuMemGetInfo_v2");
  }

  const std::string& problem() const { return problem_; }
  std::string text_of(int error) const {
    const char* text = nullptr;
    return error_text(error, &text) == 0 && text ? text : "error " + std::to_string(error);
  }

  // CUresult and CUdevice are ints, a context is a pointer.
  int (*init)(unsigned) = nullptr;
  int (*version)(int*) = nullptr;
  int (*error_text)(int, const char**) = nullptr;
  int (*count)(int*) = nullptr;
  int (*device)(int*, int) = nullptr;
  int (*name)(char*, int, int) = nullptr;
  int (*total_memory)(std::size_t*, int) = nullptr;
  int (*attribute)(int*, int, int) = nullptr;
  int (*retain_context)(void**, int) = nullptr;
  int (*push_context)(void*) = nullptr;
  int (*pop_context)(void**) = nullptr;
  int (*memory)(std::size_t*, std::size_t*) = nullptr;

 private:
  static std::string loader_says() {
    const char* text = dlerror();
    return text ? text : "libcuda.so.1 cannot be opened";
  }
  template <typename Function>
  void find(Function& function, const char* symbol) {
    function = reinterpret_cast<Function>(dlsym(library_, symbol));
    if (!function && problem_.empty())
      problem_ = std::string("the NVIDIA driver is too old: it has no ") + symbol + "; install version " + kOldestDriver + " or newer";
  }

  void* library_;  // stays open: the CUDA runtime uses it too
  std::string problem_;
};

std::string megabytes(std::size_t bytes) { return std::to_string(bytes >> 20) + " MB"; }

std::string version_text(int version) { return std::to_string(version / 1000) + '.' + std::to_string(version % 1000 / 10); }

/// Free memory of a device, or an error of the driver. Makes the device's primary context, which shows that it works, and
/// keeps it: the CUDA runtime uses the same.
int free_memory(const Driver& driver, int device, std::size_t& available) {
  void* context = nullptr;
  std::size_t total = 0;
  if (const int error = driver.retain_context(&context, device)) return error;
  if (const int error = driver.push_context(context)) return error;
  const int error = driver.memory(&available, &total);
  driver.pop_context(&context);
  return error;
}

struct Verdict {
  bool usable;
  std::string line;
};

Verdict examine(const Driver& driver, int index) {
  const std::string title = "cuda:" + std::to_string(index);
  int device = 0, major = 0, minor = 0;
  char name[256] = "a GPU";
  std::size_t total = 0, available = 0;
  if (const int error = driver.device(&device, index)) return {false, title + ": " + driver.text_of(error)};
  driver.name(name, sizeof name, device);
  driver.attribute(&major, kCapabilityMajor, device);
  driver.attribute(&minor, kCapabilityMinor, device);
  driver.total_memory(&total, device);
  const std::string facts = title + ": " + name + ", compute capability " + std::to_string(major) + '.' +
                            std::to_string(minor) + ", " + megabytes(total);
  if (10 * major + minor < kOldestCapability)
    return {false, facts + ": too old, foretoken's kernels need compute capability 8.0 or newer"};
  if (const int error = free_memory(driver, device, available)) return {false, facts + ": " + driver.text_of(error)};
  if (available < kLeastMemory)
    return {false, facts + ": too little memory, only " + megabytes(available) + " are free; end other programs that use it"};
  return {true, facts + ", " + megabytes(available) + " free"};
}

}  // namespace

DeviceSurvey survey_devices(int wanted) {
  const Driver driver;
  if (!driver.problem().empty()) return {{}, driver.problem()};
  constexpr int no_device = 100;  // CUDA_ERROR_NO_DEVICE
  const std::string none = "there is an NVIDIA driver, but no GPU that this process may use; check nvidia-smi and CUDA_VISIBLE_DEVICES";
  if (const int error = driver.init(0))
    return {{}, error == no_device ? none : "the NVIDIA driver does not start: " + driver.text_of(error) + "; check nvidia-smi"};
  int version = 0, count = 0;
  driver.version(&version);
  if (version < kOldestCuda)
    return {{}, "the NVIDIA driver is too old: it knows CUDA " + version_text(version) + ", foretoken needs " +
                    version_text(kOldestCuda) + "; install version " + kOldestDriver + " or newer"};
  if (const int error = driver.count(&count)) return {{}, "the NVIDIA driver reports: " + driver.text_of(error)};
  if (count == 0) return {{}, none};
  if (wanted >= count)
    return {{}, "there is no device cuda:" + std::to_string(wanted) + "; this process sees " + std::to_string(count) +
                    (count == 1 ? " GPU" : " GPUs")};
  DeviceSurvey survey;
  std::string unusable;
  for (int index = std::max(wanted, 0); index < (wanted < 0 ? count : wanted + 1); ++index) {
    const Verdict verdict = examine(driver, index);
    if (verdict.usable) survey.usable.push_back(index);
    std::string& text = verdict.usable ? survey.text : unusable;
    text += (text.empty() ? "" : "\n") + verdict.line;
    if (verdict.usable && wanted == kFirstUsableDevice) break;
  }
  if (survey.usable.empty()) survey.text = "no GPU can be used: " + unusable;
  return survey;
}

}  // namespace foretoken::cuda
