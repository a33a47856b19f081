#pragma once

// Between the operations and the vector kernels, which are compiled once for each instruction set. Like
// matmul_kernels.h this has plain structures only: an inline function here could end up in the program in the wrong
// instruction set.
//
// `T` in a comment is the activation dtype of the table, float32 or bfloat16. Strides are in elements.

#include <cstdint>

namespace foretoken::cpu {

enum class Isa : std::uint8_t;

constexpr int kPagePositions = 16;        // P: the lanes of one vector
constexpr int kGreatestQueryTile = 48;    // of any table
constexpr int kGreatestTopK = 64;
constexpr int kWeightChunk = 256;         // sampling weights that are summed before a draw looks among them

/// RMSNorm of some rows.
struct NormRows {
  const float* x = nullptr;        // (rows, cols)
  std::int64_t x_stride = 0;
  const float* weight = nullptr;   // (cols)
  float epsilon = 0;
  void* y = nullptr;               // (rows, cols) T, forward
  std::int64_t y_stride = 0;
  float* rstd = nullptr;           // (rows)
  const float* dy = nullptr;       // (rows, cols), backward
  std::int64_t dy_stride = 0;
  float* dx = nullptr;             // (rows, cols), added to
  std::int64_t dx_stride = 0;
  void* dx_t = nullptr;            // (rows, cols) T, dx rounded, or null
  std::int64_t dx_t_stride = 0;
  float* dweight = nullptr;        // (cols), overwritten with these rows' share
  std::int64_t rows = 0, cols = 0;
};

/// Norm and rotation of the q and k heads of some rows, whose keys and values go to pages.
struct RopeRows {
  const void* qkv = nullptr;       // (rows, (H + 2K)·D) T
  std::int64_t qkv_stride = 0;
  const float* q_norm = nullptr;   // (D) or null
  const float* k_norm = nullptr;
  float epsilon = 0;
  const std::int32_t* positions = nullptr;  // (rows)
  const float* rope = nullptr;     // (positions, D)
  std::int64_t rope_stride = 0;
  int heads = 0, kv_heads = 0, head_dim = 0;
  void* q = nullptr;               // (rows, H·D) T, forward
  std::int64_t q_stride = 0;
  void* k = nullptr;               // (rows, K·D) T, or with a stride of 0 one row for all
  std::int64_t k_stride = 0;
  const std::int32_t* row_begin = nullptr;  // (rows + 1), see CacheWrites
  const std::int32_t* slots = nullptr;
  void* pages = nullptr;           // page: K times keys and values (attention_forward.h), T
  const float* dq = nullptr;       // (rows, H·D), backward
  std::int64_t dq_stride = 0;
  const float* dk = nullptr;       // (rows, K·D)
  std::int64_t dk_stride = 0;
  const float* dv = nullptr;       // (rows, K·D)
  std::int64_t dv_stride = 0;
  void* dqkv = nullptr;            // (rows, (H + 2K)·D) T
  std::int64_t dqkv_stride = 0;
  float* dq_norm = nullptr;        // (D), overwritten with these rows' share
  float* dk_norm = nullptr;
  float* scratch = nullptr;        // (D)
  std::int64_t rows = 0;
};

/// A query row of attention: where it lies and what it sees.
struct QueryRow {
  std::int32_t row;
  std::int32_t position;
  const std::int32_t* table;       // pages of its path
};

/// Attention of up to `query_tile` query vectors (rows times the query heads of one kv head).
struct AttentionTile {
  const void* q = nullptr;         // (N, H·D) T
  std::int64_t q_stride = 0;
  const void* pages = nullptr;     // page: K times keys and values (attention_forward.h), T
  std::int64_t page_stride = 0;
  int kv_head = 0, head_dim = 0;
  int first_head = 0, heads = 0;   // the query heads that take part, all of them kv_head's
  float scale = 0;
  std::int32_t window = 0;
  const QueryRow* rows = nullptr;
  int rows_count = 0;
  void* out = nullptr;             // (N, H·D) T
  std::int64_t out_stride = 0;
  float* lse = nullptr;            // (N, H) or null
  std::int64_t lse_stride = 0;
  float* scratch = nullptr;        // attention_forward_scratch floats
};

/// Query rows that follow each other, and the rows of their path from position 0 on.
struct QueryRun {
  std::int32_t row, count, position;
  const std::int32_t* path_rows;
};

/// The gradients of one kv head's attention from some neighbouring query rows of one path.
struct AttentionPiece {
  const void* q = nullptr;         // (N, H·D) T
  std::int64_t q_stride = 0;
  const void* k = nullptr;         // (N, K·D) T
  std::int64_t k_stride = 0;
  const void* v = nullptr;         // (N, K·D) T
  std::int64_t v_stride = 0;
  const void* out = nullptr;       // (N, H·D) T
  std::int64_t out_stride = 0;
  const void* dout = nullptr;      // (N, H·D) T
  std::int64_t dout_stride = 0;
  const float* lse = nullptr;      // (N, H)
  std::int64_t lse_stride = 0;
  float* dq = nullptr;             // (N, H·D)
  std::int64_t dq_stride = 0;
  float* dk = nullptr;             // (N, K·D)
  std::int64_t dk_stride = 0;
  float* dv = nullptr;             // (N, K·D)
  std::int64_t dv_stride = 0;
  int kv_head = 0, group = 0, head_dim = 0;   // group = H / K
  float scale = 0;
  std::int32_t window = 0;
  QueryRun run = {};
  float* dpath = nullptr;          // attention_path_floats: this piece's share of dk and dv along the path
  float* scratch = nullptr;        // attention_backward_scratch floats
};

/// What the softmax of one tempered row comes to.
struct RowStatistics {
  float max = 0;        // of the tempered logits
  float log_sum = 0;    // log Σ exp(z − max); lse = max + log_sum
  float entropy = 0;    // nats
};

/// Gradient of one row of logits.
struct LogprobGradient {
  const float* logits = nullptr;            // (cols)
  float inverse_temperature = 1;
  float lse = 0, entropy = 0;
  const std::int32_t* targets = nullptr;    // (targets_count)
  const float* dlogprobs = nullptr;         // (targets_count)
  std::int64_t targets_count = 0;
  float dentropy = 0;
  void* dlogits = nullptr;                  // (cols) T
  std::int64_t cols = 0;
};

/// One AdamW update of part of a tensor, see `AdamW`; what is bfloat16 is rounded by chance.
struct AdamWRange {
  void* master = nullptr;          // (count)
  void* m = nullptr;
  void* v = nullptr;
  const float* gradient = nullptr;
  float learning_rate = 0, beta1 = 0, beta2 = 0, epsilon = 0, weight_decay = 0, gradient_scale = 0;
  float rest1 = 0, rest2 = 0;      // 1 − β
  float reciprocal_correction1 = 0, reciprocal_correction2 = 0;   // 1 / (1 − βᵗ)
  std::uint64_t rounding_key = 0;
  std::uint32_t rounding_stream = 0;
  std::int64_t first_element = 0;  // of `count`, within the tensor
  std::int64_t count = 0;
};

/// The kernels of one instruction set for one activation dtype T.
struct Kernels {
  // ---- plain rows of `count` elements
  void (*widen)(const void* x, float* y, std::int64_t count);             // T to float32
  void (*narrow)(const float* x, void* y, std::int64_t count);            // float32 to T, to nearest
  void (*round)(const float* x, float* y, std::int64_t count);            // float32 to the nearest value of T
  void (*add)(const float* x, float* y, std::int64_t count);              // y += x
  /// T: average += share · (x − average)
  void (*average)(void* average, const void* x, float share, std::int64_t count);
  void (*exponential)(const float* x, float* y, std::int64_t count);      // y = e^x
  double (*sum_squares)(const void* x, std::int64_t count);               // T
  /// y (cols) += column sums of x (rows, cols) T.
  void (*column_sums)(const void* x, std::int64_t stride, std::int64_t rows, std::int64_t cols, float* y);

  void (*norm_forward)(const NormRows&);
  void (*norm_backward)(const NormRows&);
  void (*rope_forward)(const RopeRows&);
  void (*rope_backward)(const RopeRows&);
  void (*swiglu_forward)(const void* gate, const void* up, void* h, std::int64_t count);
  void (*swiglu_backward)(const void* dh, const void* gate, const void* up, void* dgate, void* dup,
                          std::int64_t count);

  int query_tile;                // rows times query heads of one kv head that attention takes at a time
  int rows_beyond;               // for which its scratch memory has room beside them
  int gradient_tile;             // of the backward pass what query_tile is of the forward one
  void (*attention_forward)(const AttentionTile&);
  /// dq of the piece's rows, and its share of dk and dv into dpath.
  void (*attention_backward)(const AttentionPiece&);
  /// Adds the share to dk and dv.
  void (*attention_backward_add)(const AttentionPiece&);

  /// Statistics of the softmax of logits · inverse_temperature; `weights` (cols), unless null, becomes exp(z − max).
  RowStatistics (*row_statistics)(const float* logits, std::int64_t cols, float inverse_temperature, float* weights);
  /// The `k` greatest of x, in falling order; k <= kGreatestTopK and k <= count.
  void (*top_values)(const float* x, std::int64_t count, int k, float* values);
  void (*logprob_backward)(const LogprobGradient&);
  /// weights = exp((x − max) · inverse_temperature)
  void (*sampling_weights)(const float* x, std::int64_t count, float max, float inverse_temperature, float* weights);
  /// The sum of each chunk of kWeightChunk.
  void (*chunk_sums)(const float* weights, std::int64_t count, float* sums);
  /// NaN where one of x is.
  float (*greatest)(const float* x, std::int64_t count);

  /// By dtypes of master and moments: [0] float32, [1] bfloat16.
  void (*adamw[2][2])(const AdamWRange&);
};

/// Floats of scratch that attention takes for paths of up to `longest_path` positions.
std::int64_t attention_forward_scratch(const Kernels& kernels, std::int64_t longest_path, int head_dim);
std::int64_t attention_path_floats(std::int64_t longest_path, int head_dim);
std::int64_t attention_backward_scratch(const Kernels& kernels, std::int64_t longest_path, int head_dim);

/// The kernels for `isa`.
const Kernels& kernels_for(Isa isa, bool bfloat16);

// One per file kernels_*.cpp.
const Kernels& kernels_portable(bool bfloat16);
#if defined(__x86_64__)
const Kernels& kernels_avx2(bool bfloat16);
const Kernels& kernels_avx512(bool bfloat16);
const Kernels& kernels_avx512_bf16(bool bfloat16);
const Kernels& kernels_amx(bool bfloat16);
#endif

}  // namespace foretoken::cpu
