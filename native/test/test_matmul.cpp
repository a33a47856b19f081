#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "backend/cpu/matmul.h"
#include "core/error.h"
#include "core/philox.h"
#include "test/test.h"

using namespace foretoken;
using namespace foretoken::cpu;

namespace {

// Written around every matrix and compared afterwards; as a bfloat16 or float32 it is a NaN, so reading it shows too.
constexpr std::uint8_t kSentinel = 0xff;
constexpr std::int64_t kGuard = 64;

/// A row-major matrix with padding in its rows and guards around it, all filled with sentinels.
class Matrix {
 public:
  Matrix(DType dtype, std::int64_t rows, std::int64_t columns, std::int64_t stride)
      : dtype_(dtype), rows_(rows), columns_(columns), stride_(stride),
        bytes_(2 * kGuard + (rows * stride - (rows > 0 ? stride - columns : 0)) * size(), kSentinel) {}

  static Matrix random(DType dtype, std::int64_t rows, std::int64_t columns, std::int64_t stride, std::uint32_t seed) {
    Matrix matrix(dtype, rows, columns, stride);
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t c = 0; c < columns; ++c) {
        const auto words = random_words(seed, RandomUse::Initialisation, static_cast<std::uint32_t>(r),
                                        static_cast<std::uint64_t>(c));
        matrix.set(r, c, 2 * uniform_float(words[0]) - 1);
      }
    }
    return matrix;
  }

  double at(std::int64_t r, std::int64_t c) const {
    const std::uint8_t* from = bytes_.data() + kGuard + (r * stride_ + c) * size();
    if (dtype_ == DType::Float32) { float value; std::memcpy(&value, from, 4); return value; }
    BFloat16 value;
    std::memcpy(&value, from, 2);
    return static_cast<float>(value);
  }
  void set(std::int64_t r, std::int64_t c, float value) {
    std::uint8_t* to = bytes_.data() + kGuard + (r * stride_ + c) * size();
    const BFloat16 rounded(value);
    if (dtype_ == DType::Float32) std::memcpy(to, &value, sizeof value);
    else std::memcpy(to, &rounded, sizeof rounded);
  }

  MatrixView view(std::int64_t row = 0) const { return {start_of(row), stride_, dtype_}; }
  MutableMatrixView out() { return {bytes_.data() + kGuard, stride_, dtype_}; }
  const float* floats() const { return reinterpret_cast<const float*>(bytes_.data() + kGuard); }
  float* floats() { return reinterpret_cast<float*>(bytes_.data() + kGuard); }
  std::int64_t stride() const { return stride_; }
  std::int64_t columns() const { return columns_; }

  bool row_equals(std::int64_t row, const Matrix& other, std::int64_t other_row) const {
    return std::memcmp(start_of(row), other.start_of(other_row), static_cast<std::size_t>(columns_ * size())) == 0;
  }

  /// Whether guards and padding still hold the sentinel.
  bool untouched_around() const {
    const std::int64_t end = static_cast<std::int64_t>(bytes_.size());
    for (std::int64_t i = 0; i < end; ++i) {
      const std::int64_t inside = i - kGuard;
      const bool in_matrix = inside >= 0 && i < end - kGuard && inside % (stride_ * size()) < columns_ * size();
      if (!in_matrix && bytes_[static_cast<std::size_t>(i)] != kSentinel) return false;
    }
    return true;
  }

 private:
  const std::uint8_t* start_of(std::int64_t row) const { return bytes_.data() + kGuard + row * stride_ * size(); }
  std::int64_t size() const { return static_cast<std::int64_t>(size_of(dtype_)); }
  DType dtype_;
  std::int64_t rows_, columns_, stride_;
  std::vector<std::uint8_t> bytes_;
};

std::vector<Isa> available_isas() {
  std::vector<Isa> isas;
  for (const Isa isa : kAllIsas) if (isa_available(isa)) isas.push_back(isa);
  return isas;
}

constexpr DType kDTypes[] = {DType::Float32, DType::BFloat16};

/// Says which case a check failed in.
std::string describe(Isa isa, DType dtype, std::int64_t m, std::int64_t k, std::int64_t n) {
  return std::string(name_of(isa)) + " " + name_of(dtype) + " M=" + std::to_string(m) + " K=" + std::to_string(k) +
         " N=" + std::to_string(n);
}
#define CHECK_CASE(condition, text) \
  do { if (!(condition)) ::foretoken::test::fail_check(__FILE__, __LINE__, #condition, " for ", text); } while (false)

PackedMatrix packed(ThreadTeam& team, const Matmul& matmul, DType dtype, const Matrix& source, std::int64_t k,
                    std::int64_t n, bool transposed) {
  PackedMatrix matrix(matmul, dtype, k, n);
  CHECK_EQ(matrix.bytes(), PackedMatrix::bytes_for(matmul, dtype, k, n));
  pack(team, matrix, source.view(), transposed);
  return matrix;
}

/// K additions in float32 err by at most K half ulps of the largest partial sum, which is below Σ|a b|; doubled because
/// a product may be rounded before it is added (portable), and once more for the rounding to bfloat16 where asked for.
double tolerance(std::int64_t k, double magnitude, DType out) {
  return (2.0 * (static_cast<double>(k) + 2) * 0x1p-24 + (out == DType::BFloat16 ? 0x1p-8 : 0)) * magnitude + 1e-37;
}

}  // namespace

TEST("a matrix product is the sum of products, plus bias and residual, for every instruction set, dtype and odd size") {
  ThreadTeam team(2);
  for (const Isa isa : available_isas()) {
    for (const DType dtype : kDTypes) {
      for (const std::int64_t k : {1, 3, 17, 172}) {
        for (const std::int64_t n : {1, 5, 47, 49, 172}) {
          for (const std::int64_t m : {1, 2, 3, 5, 8, 13, 70}) {
            for (int variant = 0; variant < 4; ++variant) {
              const std::string which = describe(isa, dtype, m, k, n) + " variant " + std::to_string(variant);
              const bool transposed = variant % 2 == 0, add = variant >= 2;
              const DType out_dtype = variant == 1 || variant == 2 ? DType::BFloat16 : DType::Float32;
              const Matrix a = Matrix::random(dtype, m, k, k + 3 * (variant % 3), 1);
              const Matrix b = transposed ? Matrix::random(dtype, n, k, k + variant, 2)
                                          : Matrix::random(dtype, k, n, n + variant, 2);
              const Matrix bias = Matrix::random(DType::Float32, 1, n, n, 3);
              const Matrix residual = Matrix::random(DType::Float32, m, n, n + 2, 4);
              Matrix out(out_dtype, m, n, n + variant);
              const PackedMatrix right = packed(team, matmul_for(isa), dtype, b, k, n, transposed);
              Epilogue epilogue;
              if (add) epilogue = {bias.floats(), residual.floats(), residual.stride()};
              multiply(team, a.view(), m, right, epilogue, out.out());
              CHECK_CASE(out.untouched_around(), which);
              for (std::int64_t r = 0; r < m; ++r) {
                for (std::int64_t c = 0; c < n; ++c) {
                  double sum = add ? bias.at(0, c) + residual.at(r, c) : 0;
                  double magnitude = add ? std::fabs(bias.at(0, c)) + std::fabs(residual.at(r, c)) : 0;
                  for (std::int64_t i = 0; i < k; ++i) {
                    const double term = a.at(r, i) * (transposed ? b.at(c, i) : b.at(i, c));
                    sum += term;
                    magnitude += std::fabs(term);
                  }
                  CHECK_CASE(std::fabs(out.at(r, c) - sum) <= tolerance(k, magnitude, out_dtype), which);
                }
              }
            }
          }
        }
      }
    }
  }
}

TEST("a row of a matrix product has the same bits for every number of rows, position, stride and number of threads") {
  ThreadTeam teams[] = {ThreadTeam(1), ThreadTeam(2), ThreadTeam(3)};
  constexpr std::int64_t kMost = 512;
  for (const Isa isa : available_isas()) {
    for (const DType dtype : kDTypes) {
      for (const auto& [k, n] : {std::pair<std::int64_t, std::int64_t>{172, 172}, {35, 401}, {1030, 49}, {4099, 96}}) {
        const DType out_dtype = dtype;
        const Matrix a = Matrix::random(dtype, kMost, k, k, 5);
        const Matrix b = Matrix::random(dtype, n, k, k, 6);
        const PackedMatrix right = packed(teams[1], matmul_for(isa), dtype, b, k, n, true);
        Matrix all(out_dtype, kMost, n, n);
        multiply(teams[1], a.view(), kMost, right, {}, all.out());
        // Rows one by one say what each row's bits are on its own.
        for (std::int64_t r = 0; r < kMost; r += 37) {
          Matrix alone(out_dtype, 1, n, n);
          multiply(teams[0], a.view(r), 1, right, {}, alone.out());
          CHECK_CASE(alone.row_equals(0, all, r), describe(isa, dtype, 1, k, n));
        }
        const Matrix padded = Matrix::random(dtype, 71, k, k + 11, 5);
        for (std::int64_t m = 1; m <= 70; m += k > 200 && m > 9 ? 5 : 1) {
          for (ThreadTeam& team : teams) {
            const std::int64_t from = (m * 7) % 400;
            Matrix some(out_dtype, m, n, n + 5);
            multiply(team, a.view(from), m, right, {}, some.out());
            const std::string which = describe(isa, dtype, m, k, n);
            for (std::int64_t r = 0; r < m; ++r) CHECK_CASE(some.row_equals(r, all, from + r), which);
            if (&team != &teams[m % 3]) continue;
            Matrix strided(out_dtype, m, n, n + 1);
            multiply(team, padded.view(1), m, right, {}, strided.out());
            for (std::int64_t r = 0; r < m; ++r) CHECK_CASE(strided.row_equals(r, all, r + 1), which);
          }
        }
      }
    }
  }
}

TEST("a residual may be the output itself, and bfloat16 output is the float32 output rounded once") {
  ThreadTeam team(2);
  for (const Isa isa : available_isas()) {
    for (const DType dtype : kDTypes) {
      const std::int64_t m = 19, k = 65, n = 131;
      const Matrix a = Matrix::random(dtype, m, k, k, 7), b = Matrix::random(dtype, k, n, n, 8);
      const Matrix residual = Matrix::random(DType::Float32, m, n, n, 9);
      const PackedMatrix right = packed(team, matmul_for(isa), dtype, b, k, n, false);
      Matrix apart(DType::Float32, m, n, n), in_place = residual, rounded(DType::BFloat16, m, n, n);
      const Epilogue epilogue{nullptr, residual.floats(), residual.stride()};
      multiply(team, a.view(), m, right, epilogue, apart.out());
      multiply(team, a.view(), m, right, {nullptr, in_place.floats(), in_place.stride()}, in_place.out());
      multiply(team, a.view(), m, right, epilogue, rounded.out());
      for (std::int64_t r = 0; r < m; ++r) {
        CHECK(in_place.row_equals(r, apart, r));
        for (std::int64_t c = 0; c < n; ++c) {
          CHECK_EQ(rounded.at(r, c), static_cast<float>(BFloat16(static_cast<float>(apart.at(r, c)))));
        }
      }
    }
  }
}

TEST("sums so long that a panel is taken in parts have the bits of rows taken alone") {
  ThreadTeam team(2);
  const std::int64_t m = 70, k = 36871, n = 20;   // beyond 1.5 × 384 KiB of panel on each instruction set, and odd
  for (const DType dtype : kDTypes) {
    const Matrix a = Matrix::random(dtype, m, k, k + 1, 19), b = Matrix::random(dtype, n, k, k, 20);
    const Matrix bias = Matrix::random(DType::Float32, 1, n, n, 21);
    const Matrix residual = Matrix::random(DType::Float32, m, n, n + 3, 22);
    for (const Isa isa : available_isas()) {
      const PackedMatrix right = packed(team, matmul_for(isa), dtype, b, k, n, true);
      Matrix all(dtype, m, n, n + 2);
      multiply(team, a.view(), m, right, {bias.floats(), residual.floats(), residual.stride()}, all.out());
      CHECK_CASE(all.untouched_around(), describe(isa, dtype, m, k, n));
      for (std::int64_t r = 0; r < m; ++r) {
        Matrix alone(dtype, 1, n, n);
        const float* const from = residual.floats() + r * residual.stride();
        multiply(team, a.view(r), 1, right, {bias.floats(), from, residual.stride()}, alone.out());
        CHECK_CASE(alone.row_equals(0, all, r), describe(isa, dtype, m, k, n));
      }
    }
  }
}

TEST("packing rounds float32 to bfloat16 and widens bfloat16 exactly, whichever way the source lies") {
  ThreadTeam team(2);
  for (const Isa isa : available_isas()) {
    for (const DType dtype : kDTypes) {
      for (const DType source_dtype : kDTypes) {
        const std::int64_t k = 131, n = 172;
        const Matrix wide = Matrix::random(source_dtype, n, k, k + 1, 10);
        Matrix converted(dtype, n, k, k), turned(source_dtype, k, n, n + 3);
        for (std::int64_t r = 0; r < n; ++r) {
          for (std::int64_t c = 0; c < k; ++c) {
            converted.set(r, c, static_cast<float>(wide.at(r, c)));
            turned.set(c, r, static_cast<float>(wide.at(r, c)));
          }
        }
        const PackedMatrix expected = packed(team, matmul_for(isa), dtype, converted, k, n, true);
        const PackedMatrix one = packed(team, matmul_for(isa), dtype, wide, k, n, true);
        const PackedMatrix other = packed(team, matmul_for(isa), dtype, turned, k, n, false);
        CHECK(std::memcmp(expected.data(), one.data(), one.bytes()) == 0);
        CHECK(std::memcmp(expected.data(), other.data(), one.bytes()) == 0);
        AlignedMemory arena(one.bytes());
        PackedMatrix elsewhere(matmul_for(isa), dtype, k, n, arena.data());
        pack(team, elsewhere, wide.view(), true);
        CHECK(std::memcmp(expected.data(), arena.data(), one.bytes()) == 0);
      }
    }
  }
}

TEST("a weight gradient adds the sum over tokens of outer products to what was there") {
  ThreadTeam team(2);
  for (const Isa isa : available_isas()) {
    for (const DType dtype : kDTypes) {
      GradientWorkspace workspace;
      for (const std::int64_t tokens : {1, 2, 3, 17, 531}) {
        for (const std::int64_t outputs : {1, 7, 49}) {
          for (const std::int64_t inputs : {1, 5, 47, 172}) {
            const std::string which = describe(isa, dtype, outputs, tokens, inputs);
            const Matrix dy = Matrix::random(dtype, tokens, outputs, outputs + 3, 11);
            const Matrix x = Matrix::random(dtype, tokens, inputs, inputs + 1, 12);
            const Matrix before = Matrix::random(DType::Float32, outputs, inputs, inputs + 2, 13);
            Matrix dw = before;
            const Matmul& matmul = matmul_for(isa);
            multiply_gradient(team, matmul, workspace, dy.view(), x.view(), tokens, outputs, inputs, dw.floats(),
                              dw.stride());
            CHECK_CASE(workspace.bytes() >= GradientWorkspace::bytes_for(matmul, dtype, 2, outputs, inputs), which);
            CHECK_CASE(dw.untouched_around(), which);
            for (std::int64_t o = 0; o < outputs; ++o) {
              for (std::int64_t i = 0; i < inputs; ++i) {
                double sum = before.at(o, i), magnitude = std::fabs(sum);
                for (std::int64_t t = 0; t < tokens; ++t) {
                  const double term = dy.at(t, o) * x.at(t, i);
                  sum += term;
                  magnitude += std::fabs(term);
                }
                CHECK_CASE(std::fabs(dw.at(o, i) - sum) <= tolerance(tokens, magnitude, DType::Float32), which);
              }
            }
          }
        }
      }
    }
  }
}

TEST("a weight gradient has the same bits in one call or cut at whole steps of tokens, for any threads and strides") {
  for (const Isa isa : available_isas()) {
    for (const DType dtype : kDTypes) {
      const Matmul& matmul = matmul_for(isa);
      const std::int64_t tokens = 1301, outputs = 107, inputs = 172, step = tokens_of_a_step(matmul, dtype);
      const Matrix dy = Matrix::random(dtype, tokens, outputs, outputs, 14);
      const Matrix x = Matrix::random(dtype, tokens, inputs, inputs, 15);
      const Matrix dy_strided = Matrix::random(dtype, tokens, outputs, outputs + 9, 14);
      const Matrix x_strided = Matrix::random(dtype, tokens, inputs, inputs + 5, 15);
      const Matrix before = Matrix::random(DType::Float32, outputs, inputs, inputs, 16);
      GradientWorkspace workspace;
      Matrix whole = before;
      {
        ThreadTeam team(1);
        multiply_gradient(team, matmul, workspace, dy.view(), x.view(), tokens, outputs, inputs, whole.floats(),
                          inputs);
      }
      for (const int threads : {1, 2, 3}) {
        ThreadTeam team(threads);
        for (const std::int64_t part : {step, 5 * step, std::int64_t{544}, tokens + 1}) {
          if (part == step && threads != 2) continue;
          Matrix dw = before;
          for (std::int64_t token = 0; token < tokens; token += part) {
            multiply_gradient(team, matmul, workspace, dy_strided.view(token), x_strided.view(token),
                              std::min(part, tokens - token), outputs, inputs, dw.floats(), inputs);
          }
          const std::string which = describe(isa, dtype, outputs, part, inputs);
          for (std::int64_t o = 0; o < outputs; ++o) CHECK_CASE(dw.row_equals(o, whole, o), which);
        }
      }
    }
  }
}

TEST("products with an empty side write nothing, and an empty sum is the epilogue alone") {
  ThreadTeam team(1);
  for (const Isa isa : available_isas()) {
    const Matrix bias = Matrix::random(DType::Float32, 1, 5, 5, 17);
    PackedMatrix none(matmul_for(isa), DType::Float32, 0, 5);
    Matrix out(DType::Float32, 2, 5, 5);
    multiply(team, MatrixView(bias.floats(), 0), 0, none, {}, out.out());
    CHECK(Matrix(DType::Float32, 2, 5, 5).row_equals(0, out, 0));
    multiply(team, MatrixView(bias.floats(), 0), 2, none, {bias.floats(), nullptr, 0}, out.out());
    CHECK(out.row_equals(0, bias, 0) && out.row_equals(1, bias, 0));
  }
}

TEST("operands that do not fit each other are refused") {
  ThreadTeam team(1);
  PackedMatrix right(matmul_for(best_isa()), DType::BFloat16, 4, 4);
  Matrix a = Matrix::random(DType::Float32, 2, 4, 4, 18), out(DType::Float32, 2, 4, 4);
  CHECK_FAILS(ErrorCode::Internal, multiply(team, a.view(), 2, right, {}, out.out()));
  CHECK_FAILS(ErrorCode::Internal, PackedMatrix(matmul_for(best_isa()), DType::Float16, 4, 4));
}

TEST("instruction sets have names, the environment chooses one, and a wrong name is refused with those there are") {
  for (const Isa isa : kAllIsas) CHECK(parse_isa(name_of(isa)) == isa);
  CHECK_FAILS(ErrorCode::InvalidArgument, parse_isa("sse9"));
  CHECK(isa_available(Isa::Portable) && isa_available(best_isa()));
  const char* before = std::getenv("FORETOKEN_ISA");
  const std::string kept = before == nullptr ? "" : before;
  setenv("FORETOKEN_ISA", "portable", 1);
  CHECK(selected_isa() == Isa::Portable);
  setenv("FORETOKEN_ISA", "sse9", 1);
  CHECK_FAILS(ErrorCode::InvalidArgument, selected_isa());
  for (const Isa isa : kAllIsas) {
    if (isa_available(isa)) continue;
    setenv("FORETOKEN_ISA", name_of(isa), 1);
    CHECK_FAILS(ErrorCode::DeviceUnavailable, selected_isa());
    CHECK_FAILS(ErrorCode::DeviceUnavailable, matmul_for(isa));
  }
  unsetenv("FORETOKEN_ISA");
  CHECK(selected_isa() == best_isa());
  if (before != nullptr) setenv("FORETOKEN_ISA", kept.c_str(), 1);
}
