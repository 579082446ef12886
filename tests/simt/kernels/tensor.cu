// mma and ldmatrix against plain loops: the fragments are filled and read as the PTX ISA draws
// them.
#include "harness.h"

using harness::Array;
using harness::launch;

enum class Format { tf32, f16, bf16 };

// The bits of a small integer.
static uint32_t encode(Format format, int value) {
  const float single = static_cast<float>(value);
  const uint32_t bits = simt::bit_cast<uint32_t>(single);
  if (format == Format::tf32) return bits;
  if (format == Format::bf16) return bits >> 16;
  if (!value) return 0;
  return (bits >> 16 & 0x8000u) | ((bits >> 23 & 0xffu) - 112) << 10 | (bits >> 13 & 0x3ffu);
}

template <Format FORMAT>
__device__ void multiply(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                         const float (&c)[4]) {
  if constexpr (FORMAT == Format::tf32)
    simt::mma_m16n8k8_tf32(d, a, b, c);
  else if constexpr (FORMAT == Format::f16)
    simt::mma_m16n8k16_f16(d, a, b, c);
  else
    simt::mma_m16n8k16_bf16(d, a, b, c);
}

// D = A B + C for A [16][depth], B [depth][8], C [16][8]; depth 8 of words, or 16 of halves.
template <Format FORMAT>
__global__ void mma_kernel(const uint32_t* a, const uint32_t* b, const float* c, float* d) {
  constexpr bool kWords = FORMAT == Format::tf32;
  constexpr int kDepth = kWords ? 8 : 16;
  const int lane = static_cast<int>(threadIdx.x), g = lane / 4, t = lane % 4;
  uint32_t fragment_a[4], fragment_b[2];
  float fragment_c[4], fragment_d[4];
  for (int i = 0; i < 4; ++i) {
    const int row = g + 8 * (i % 2), first = kWords ? t + 4 * (i / 2) : 2 * t + 8 * (i / 2);
    const uint32_t* element = a + row * kDepth + first;
    fragment_a[i] = kWords ? element[0] : element[0] | element[1] << 16;
    fragment_c[i] = c[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2];
  }
  for (int i = 0; i < 2; ++i) {
    const int first = kWords ? t + 4 * i : 2 * t + 8 * i;
    const uint32_t* element = b + first * 8 + g;
    fragment_b[i] = kWords ? element[0] : element[0] | element[8] << 16;
  }
  multiply<FORMAT>(fragment_d, fragment_a, fragment_b, fragment_c);
  for (int i = 0; i < 4; ++i) d[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2] = fragment_d[i];
}

template <Format FORMAT>
static void mma_of() {
  constexpr size_t kDepth = FORMAT == Format::tf32 ? 8 : 16;
  const std::vector<int> a = harness::integers<int>(16 * kDepth, 1);
  const std::vector<int> b = harness::integers<int>(8 * kDepth, 2);
  std::vector<uint32_t> a_bits, b_bits;
  for (const int value : a) a_bits.push_back(encode(FORMAT, value));
  for (const int value : b) b_bits.push_back(encode(FORMAT, value));
  Array<uint32_t> a_array(a_bits, "a"), b_array(b_bits, "b");
  Array<float> c(harness::integers<float>(128, 3), "c"), d(128, "d");
  launch(mma_kernel<FORMAT>, 1, 32, a_array.data(), b_array.data(), c.data(), d.data());
  for (size_t row = 0; row < 16; ++row)
    for (size_t column = 0; column < 8; ++column) {
      float sum = c[row * 8 + column];
      for (size_t k = 0; k < kDepth; ++k)
        sum += static_cast<float>(a[row * kDepth + k] * b[k * 8 + column]);
      REQUIRE(d[row * 8 + column] == sum);
    }
  d.publish();
}

TEST(mma_tf32) {
  mma_of<Format::tf32>();
}
TEST(mma_f16) {
  mma_of<Format::f16>();
}
TEST(mma_bf16) {
  mma_of<Format::bf16>();
}

// ---- rounding to tf32: ten bits of mantissa, ties away from zero

__global__ void to_tf32_kernel(const float* x, uint32_t* y) {
  y[threadIdx.x] = simt::to_tf32(x[threadIdx.x]);
}

TEST(rounding_to_tf32) {
  constexpr uint32_t kStep = 0x2000;  // of the eleventh bit
  std::vector<float> values;
  std::vector<uint32_t> expected;
  for (const uint32_t base : {0x3f800000u, 0xc0490000u, 0x00000000u, 0x7f7fe000u, 0x80004000u}) {
    for (const uint32_t below : {0x0u, 0x1u, 0x0fffu, 0x1000u, 0x1001u, 0x1fffu}) {
      values.push_back(simt::bit_cast<float>(base + below));
      expected.push_back(base + (below >= 0x1000u ? kStep : 0));
    }
  }
  values.push_back(simt::bit_cast<float>(0x7f800000u));  // infinity stays
  expected.push_back(0x7f800000u);
  Array<float> x(values, "x");
  Array<uint32_t> y(values.size(), "y");
  launch(to_tf32_kernel, 1, static_cast<unsigned>(values.size()), x.data(), y.data());
  for (size_t i = 0; i < values.size(); ++i) REQUIRE(y[i] == expected[i]);
}

// ---- ldmatrix

template <bool TRANSPOSED>
__global__ void ldmatrix_kernel(const uint16_t* x, uint32_t* y) {
  __shared__ __align__(16) uint16_t matrices[4][8][8];
  const unsigned lane = threadIdx.x;
  for (unsigned i = lane; i < 256; i += 32) matrices[i / 64][i / 8 % 8][i % 8] = x[i];
  __syncwarp();
  uint32_t r[4];
  if (TRANSPOSED)
    simt::ldmatrix_x4_trans(r, &matrices[lane / 8][lane % 8][0]);
  else
    simt::ldmatrix_x4(r, &matrices[lane / 8][lane % 8][0]);
  for (unsigned i = 0; i < 4; ++i) y[4 * lane + i] = r[i];
}

template <bool TRANSPOSED>
static void ldmatrix_of() {
  Array<uint16_t> x(harness::counting<uint16_t>(256, 3), "x");
  Array<uint32_t> y(128, "y");
  launch(ldmatrix_kernel<TRANSPOSED>, 1, 32, x.data(), y.data());
  for (size_t lane = 0; lane < 32; ++lane)
    for (size_t i = 0; i < 4; ++i)
      for (size_t half = 0; half < 2; ++half) {
        size_t row = lane / 4, column = 2 * (lane % 4) + half;
        if (TRANSPOSED) std::swap(row, column);
        REQUIRE((y[4 * lane + i] >> (16 * half) & 0xffff) == x[64 * i + 8 * row + column]);
      }
  y.publish();
}

TEST(ldmatrix) {
  ldmatrix_of<false>();
}
TEST(ldmatrix_transposed) {
  ldmatrix_of<true>();
}

// ---- all of it together: C [M][N] = A [M][K] B [K][N] in bf16, tiles in flight by cp.async

constexpr int kM = 64, kN = 96, kK = 80, kTile = 32, kStep = 16;

__global__ void gemm_kernel(const uint16_t* a, const uint16_t* b, float* c) {
  __shared__ __align__(16) uint16_t a_tile[2][kTile][kStep + 8];  // rows begin in other banks
  __shared__ __align__(16) uint16_t b_tile[2][kStep][kTile + 8];
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int row0 = static_cast<int>(blockIdx.y) * kTile;
  const int column0 = static_cast<int>(blockIdx.x) * kTile;
  const int warp_row = warp / 2 * 16, warp_column = warp % 2 * 16;

  auto load = [&](int step) {
    if (thread < 64) {
      const int row = thread / 2, k = thread % 2 * 8;
      simt::cp_async<16>(&a_tile[step % 2][row][k], a + (row0 + row) * kK + step * kStep + k);
    } else {
      const int k = (thread - 64) / 4, column = thread % 4 * 8;
      simt::cp_async<16>(&b_tile[step % 2][k][column],
                         b + (step * kStep + k) * kN + column0 + column);
    }
    simt::cp_async_commit();
  };

  float sum[2][4] = {};
  load(0);
  for (int step = 0; step < kK / kStep; ++step) {
    if (step + 1 < kK / kStep) {
      load(step + 1);
      simt::cp_async_wait<1>();
    } else {
      simt::cp_async_wait<0>();
    }
    __syncthreads();
    uint32_t fragment_a[4], fragment_b[4];
    const int along = lane % 8 + 8 * (lane / 8 % 2), across = 8 * (lane / 16);
    simt::ldmatrix_x4(fragment_a, &a_tile[step % 2][warp_row + along][across]);
    simt::ldmatrix_x4_trans(fragment_b, &b_tile[step % 2][along][warp_column + across]);
    for (int half = 0; half < 2; ++half) {
      const uint32_t pair[2] = {fragment_b[2 * half], fragment_b[2 * half + 1]};
      simt::mma_m16n8k16_bf16(sum[half], fragment_a, pair, sum[half]);
    }
    __syncthreads();  // the tile is loaded again in the next step
  }
  for (int half = 0; half < 2; ++half)
    for (int i = 0; i < 4; ++i)
      c[(row0 + warp_row + lane / 4 + 8 * (i / 2)) * kN + column0 + warp_column + 8 * half +
        2 * (lane % 4) + i % 2] = sum[half][i];
}

TEST(gemm_on_tensor_cores) {
  const std::vector<int> a = harness::integers<int>(kM * kK, 5),
                         b = harness::integers<int>(kK * kN, 6);
  std::vector<uint16_t> a_bits, b_bits;
  for (const int value : a) a_bits.push_back(static_cast<uint16_t>(encode(Format::bf16, value)));
  for (const int value : b) b_bits.push_back(static_cast<uint16_t>(encode(Format::bf16, value)));
  Array<uint16_t> a_array(a_bits, "a"), b_array(b_bits, "b");
  Array<float> c(size_t{kM * kN}, "c");
  launch(gemm_kernel, dim3(kN / kTile, kM / kTile), 128, a_array.data(), b_array.data(), c.data());
  for (size_t row = 0; row < kM; ++row)
    for (size_t column = 0; column < kN; ++column) {
      int sum = 0;
      for (size_t k = 0; k < kK; ++k) sum += a[row * kK + k] * b[k * kN + column];
      REQUIRE(c[row * kN + column] == static_cast<float>(sum));
    }
  c.publish();
}
