#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

// What we use of cuBLASLt, declared by ourselves: the library is opened at run time, and nobody needs its headers to build.
// Names and values are those of its documentation; they have been the same since version 11.
namespace foretoken::cuda::cublaslt {

using Status = int;
inline constexpr Status kSuccess = 0;

inline constexpr int kFloat32 = 0, kBFloat16 = 14;  // cudaDataType
inline constexpr int kComputeFloat32 = 68;          // cublasComputeType: without TF32
inline constexpr int kComputeTf32 = 77;             // float32 rounded to TF32 before it is multiplied
inline constexpr int kAsStored = 0, kTransposed = 1;

// Attributes of a product (cublasLtMatmulDescAttributes_t) and values of its epilogue
inline constexpr int kTransposeA = 3, kTransposeB = 4, kEpilogue = 7, kBiasPointer = 8;
inline constexpr int kEpilogueBias = 4;

// Attributes of a search (cublasLtMatmulPreferenceAttributes_t) and reduction schemes of split sums
inline constexpr int kMaxWorkspace = 1, kReductionMask = 3, kAlignmentA = 5, kAlignmentB = 6, kAlignmentC = 7, kAlignmentD = 8;
inline constexpr std::uint32_t kReductionNone = 0, kReductionInWorkspace = 2;

struct Algorithm {
  std::uint64_t data[8];
};

struct HeuristicResult {
  Algorithm algorithm;
  std::size_t workspace_bytes;
  Status state;
  float waves;
  int reserved[4];
};

struct Context;
struct Description;
struct Layout;
struct Preference;

/// The functions of a library that was found.
struct Functions {
  std::string path;
  std::size_t (*get_version)();
  Status (*create)(Context**);
  Status (*destroy)(Context*);
  Status (*description_create)(Description**, int compute_type, int scale_type);
  Status (*description_destroy)(Description*);
  Status (*description_set)(Description*, int attribute, const void* value, std::size_t bytes);
  Status (*layout_create)(Layout**, int type, std::uint64_t rows, std::uint64_t cols, std::int64_t stride);
  Status (*layout_destroy)(Layout*);
  Status (*preference_create)(Preference**);
  Status (*preference_destroy)(Preference*);
  Status (*preference_set)(Preference*, int attribute, const void* value, std::size_t bytes);
  Status (*heuristic)(Context*, Description*, Layout* a, Layout* b, Layout* c, Layout* d, Preference*, int wanted,
                      HeuristicResult*, int* found);
  Status (*check)(Context*, Description*, Layout* a, Layout* b, Layout* c, Layout* d, const Algorithm*, HeuristicResult*);
  Status (*matmul)(Context*, Description*, const void* alpha, const void* a, Layout*, const void* b, Layout*, const void* beta,
                   const void* c, Layout*, void* d, Layout*, const Algorithm*, void* workspace, std::size_t workspace_bytes,
                   void* stream);
};

}  // namespace foretoken::cuda::cublaslt
