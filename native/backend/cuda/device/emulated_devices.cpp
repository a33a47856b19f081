#include "backend/cuda/device/device.h"
#include "core/error.h"

// The devices of the library that tests open: two emulated ones, as a machine with two GPUs.
namespace foretoken::cuda {

DeviceSurvey survey_devices(int index) {
  if (index == kAllDevices) return {{0, 1}, "cuda:0: emulated\ncuda:1: emulated"};
  if (index > 1) return {{}, "there is no device cuda:" + std::to_string(index) + ", only two emulated ones"};
  return {{index == kFirstUsableDevice ? 0 : index}, "emulated"};
}

std::unique_ptr<Device> make_device(int index) {
  const DeviceSurvey survey = survey_devices(index);
  if (survey.usable.empty()) fail(ErrorCode::DeviceUnavailable, survey.text);
  return make_host_device(ThreadOrder::Forward, "cuda:" + std::to_string(survey.usable.front()));
}

}  // namespace foretoken::cuda
