#include "engine/initialise.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/philox.h"
#include "core/thread_team.h"

namespace foretoken {

namespace {

double deviation(const ModelConfig& config, const ParameterSpec& spec, const Initialisation& initialisation) {
  const auto chosen = [&](double value) { return value < 0 ? config.initializer_range : value; };
  if (spec.kind == ParameterKind::Embedding) return chosen(initialisation.embedding);
  if (spec.kind == ParameterKind::Head) return chosen(initialisation.head);
  const bool output = spec.name.ends_with("o_proj.weight") || spec.name.ends_with("down_proj.weight");
  const double given = output ? initialisation.output_projection : initialisation.projection;
  // The fan-in rule replaces a given deviation's unit, not the config's default.
  return initialisation.scale_by_fan_in && given >= 0 ? given / std::sqrt(static_cast<double>(spec.cols())) : chosen(given);
}

}  // namespace

void initialise(const ModelConfig& config, const ParameterSpec& spec, std::uint32_t stream,
                const Initialisation& initialisation, std::vector<float>& values) {
  values.assign(static_cast<std::size_t>(spec.elements()), spec.kind == ParameterKind::Norm ? 1.0f : 0.0f);
  if (spec.kind == ParameterKind::Norm || spec.kind == ParameterKind::Bias) return;
  const double sigma = deviation(config, spec, initialisation);
  // Box-Muller: the two words of a draw give two normal numbers, elements 2i and 2i + 1.
  constexpr std::size_t piece = 1 << 16;
  const std::size_t pieces = (values.size() + piece - 1) / piece;
  ThreadTeam team(std::min(available_threads(), static_cast<int>(std::min<std::size_t>(pieces, 1024))));
  team.parallel_for(static_cast<std::int64_t>(pieces), [&](std::int64_t index, int) {
    const std::size_t begin = static_cast<std::size_t>(index) * piece, end = std::min(values.size(), begin + piece);
    for (std::size_t e = begin; e < end; e += 2) {
      const auto words = random_words(initialisation.seed, RandomUse::Initialisation, stream, e / 2);
      const double radius = sigma * std::sqrt(-2 * std::log(uniform_double(words[0], words[1])));
      const double angle = 2 * std::numbers::pi * uniform_double(words[2], words[3]);
      values[e] = static_cast<float>(radius * std::cos(angle));
      if (e + 1 < values.size()) values[e + 1] = static_cast<float>(radius * std::sin(angle));
    }
  });
}

}  // namespace foretoken
