#include <cmath>
#include <filesystem>

#include "test/cuda/emulated.h"
#include "test/test.h"

namespace foretoken::test {
namespace {

/// Checkpoints for tests that lie beside the repository, if they do; the tests run in its root.
std::vector<std::string> checkpoints() {
  std::vector<std::string> found;
  for (const char* folder : {"../shared/models", "shared/models"}) {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(folder, error))
      if (std::filesystem::exists(entry.path() / "config.json") && std::filesystem::exists(entry.path() / "model.safetensors"))
        found.push_back(entry.path().string());
  }
  return found;
}

TEST("device: published layouts score on the device as on the CPU, within float32") {
  const std::vector<std::string> folders = checkpoints();
  if (folders.empty()) SKIP("there are no checkpoints in ../shared/models");
  for (const std::string& folder : folders) {
    const auto device = Engine::open(folder, emulated()), host = Engine::open(folder, cpu());
    TokenForest forest;
    const std::int32_t stem = forest.add(-1, some_tokens(70, host->config().vocab_size, 1));
    for (std::uint32_t branch = 2; branch < 4; ++branch) forest.add(stem, some_tokens(9, host->config().vocab_size, branch));
    const ScoreResult actual = device->score(forest, {}, {}), expected = host->score(forest, {}, {});
    for (std::size_t i = 1; i < expected.logprobs.size(); ++i) {
      CHECK_CLOSE(actual.logprobs[i], expected.logprobs[i], 1e-4 * (1 + std::fabs(expected.logprobs[i])));
      CHECK_CLOSE(actual.entropy[i], expected.entropy[i], 1e-4 * (1 + expected.entropy[i]));
    }
  }
}

}  // namespace
}  // namespace foretoken::test
