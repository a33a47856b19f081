#include "model/rope.h"

#include <cmath>

#include "test/test.h"

using namespace foretoken;

namespace {

// Expected numbers: LlamaRotaryEmbedding of transformers 5.18.0 with torch 2.13.0 (inv_freq, and rows of its cos and
// sin), printed with nine digits. Torch's float32 power is good to one unit in the last place, and so is the division
// after it, hence the tolerance of three units.
constexpr double units = 3 * 1.2e-7;

ModelConfig model(RopeType type, std::int64_t D, double theta, std::int64_t max_positions) {
  ModelConfig config;
  config.head_dim = D;
  config.max_position_embeddings = max_positions;
  config.rope.type = type;
  config.rope.theta = theta;
  return config;
}

void check_inverse(const RopeFrequencies& frequencies, const std::vector<float>& expected) {
  CHECK_EQ(frequencies.inverse.size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    CHECK_CLOSE(frequencies.inverse[i], expected[i], units * expected[i]);
  }
}

const std::vector<float> default_16 = {1.0f,           0.316227764f,   0.100000001f,   0.0316227786f,
                                       0.00999999978f, 0.00316227786f, 0.00100000005f, 0.000316227786f};

}  // namespace

TEST("rope: default frequencies are transformers'") {
  check_inverse(rope_frequencies(model(RopeType::Default, 16, 10000.0, 64)), default_16);
  check_inverse(rope_frequencies(model(RopeType::Default, 12, 1e6, 64)),
                {1.0f, 0.099999994f, 0.00999999885f, 0.00100000005f, 9.99999684e-05f, 1.00000034e-05f});
}

TEST("rope: linear scaling divides every frequency") {
  ModelConfig config = model(RopeType::Linear, 12, 10000.0, 64);
  config.rope.factor = 3.0;
  check_inverse(rope_frequencies(config),
                {0.333333343f, 0.0718144849f, 0.0154719613f, 0.00333333318f, 0.000718144758f, 0.000154719644f});
}

TEST(
    "rope: dynamic scaling changes nothing up to max_position_embeddings and is transformers' for the maximum beyond") {
  ModelConfig config = model(RopeType::Dynamic, 16, 10000.0, 64);
  config.rope.factor = 2.0;
  for (const std::int64_t length : {0, 1, 63, 64}) check_inverse(rope_frequencies(config, length), default_16);
  check_inverse(rope_frequencies(config, 160), {1.0f, 0.259412825f, 0.0672950074f, 0.017457189f, 0.00452861842f,
                                                0.00117478159f, 0.000304753397f, 7.90569466e-05f});
}

TEST("rope: llama3 keeps short waves, stretches long ones and blends between") {
  ModelConfig config = model(RopeType::Llama3, 64, 500000.0, 131072);  // Llama 3.2 1B
  config.rope.factor = 32.0;
  config.rope.original_max_position_embeddings = 8192;
  check_inverse(rope_frequencies(config), {1.0f,
                                           0.663601279f,
                                           0.440366626f,
                                           0.292227834f,
                                           0.193922758f,
                                           0.128687382f,
                                           0.0853971019f,
                                           0.0566696189f,
                                           0.0376060307f,
                                           0.0249554086f,
                                           0.0165604409f,
                                           0.0109895291f,
                                           0.00729266508f,
                                           0.00483942125f,
                                           0.00321144611f,
                                           0.00129054801f,
                                           0.000429556705f,
                                           9.70828623e-05f,
                                           1.94616387e-05f,
                                           1.29147675e-05f,
                                           8.57025589e-06f,
                                           5.68723226e-06f,
                                           3.77405445e-06f,
                                           2.50446715e-06f,
                                           1.66196742e-06f,
                                           1.10288363e-06f,
                                           7.31874934e-07f,
                                           4.85673127e-07f,
                                           3.22293289e-07f,
                                           2.1387423e-07f,
                                           1.41927202e-07f,
                                           9.41830649e-08f});
}

TEST("rope: yarn blends by dimension and scales attention by its factor") {
  ModelConfig config = model(RopeType::Yarn, 16, 50000.0, 128);
  config.rope.factor = 4.0;
  config.rope.beta_fast = 8.0;
  config.rope.original_max_position_embeddings = 32;
  const RopeFrequencies frequencies = rope_frequencies(config);
  check_inverse(frequencies, {1.0f, 0.161625087f, 0.0167185087f, 0.00432340847f, 0.00111803401f, 0.000289123738f,
                              7.47674421e-05f, 1.93348696e-05f});
  CHECK_EQ(frequencies.attention_scaling, static_cast<float>(1.138629436111989));
}

TEST("rope: yarn without truncation, with mscales") {
  ModelConfig config = model(RopeType::Yarn, 16, 50000.0, 4096);
  config.rope.factor = 40.0;
  config.rope.mscale = 1.0;
  config.rope.mscale_all_dim = 0.5;
  config.rope.truncate = false;
  config.rope.original_max_position_embeddings = 128;
  const RopeFrequencies frequencies = rope_frequencies(config);
  check_inverse(frequencies, {1.0f, 0.145465285f, 0.00836065691f, 0.000432340836f, 0.000111803405f, 2.89123745e-05f,
                              7.47674403e-06f, 1.93348706e-06f});
  CHECK_EQ(frequencies.attention_scaling, static_cast<float>(1.1557219901962608));
}

TEST("rope: yarn takes a given attention factor as it is") {
  ModelConfig config = model(RopeType::Yarn, 16, 50000.0, 4096);
  config.rope.factor = 3.0;
  config.rope.attention_factor = 1.25;
  config.rope.original_max_position_embeddings = 128;
  const RopeFrequencies frequencies = rope_frequencies(config);
  check_inverse(frequencies, {1.0f, 0.201133445f, 0.0371522382f, 0.00576454448f, 0.00149071205f, 0.000385498337f,
                              9.9689918e-05f, 2.57798274e-05f});
  CHECK_EQ(frequencies.attention_scaling, 1.25f);
}

TEST("rope: the table holds transformers' cosines and sines, scaled") {
  ModelConfig config = model(RopeType::Yarn, 16, 50000.0, 128);
  config.rope.factor = 4.0;
  config.rope.beta_fast = 8.0;
  config.rope.original_max_position_embeddings = 32;
  std::vector<float> table(100 * 16);
  fill_rope_table(rope_frequencies(config), 100, table.data());
  const std::vector<float> row_99 = {0.0453412272f, -1.09012938f,  -0.0959137529f, 1.03591418f,
                                     1.13166177f,   1.13816309f,   1.1385982f,     1.13862729f,
                                     -1.13772631f,  -0.328778028f, 1.13458252f,    0.472608536f,
                                     0.125772431f,  0.0325868241f, 0.00842803158f, 0.00217950856f};
  // The second frequency, 0.16, is the largest that need not be exact; at position 99 its three units are 6e-6 radians.
  for (std::size_t i = 0; i < 16; ++i) CHECK_CLOSE(table[99 * 16 + i], row_99[i], 7e-6);
  for (std::size_t i = 0; i < 8; ++i) {
    CHECK_EQ(table[i], rope_frequencies(config).attention_scaling);
    CHECK_EQ(table[8 + i], 0.0f);
  }
}
