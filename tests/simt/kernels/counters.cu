// Kernels whose operations, sectors and wavefronts are known by counting on paper.
#include "harness.h"

using harness::Array;
using harness::launch;

// ---- C [64][64] = A [64][K] B [K][64] in tiles of 16 x 16: 2 * 64 * 64 * K operations

constexpr int kSize = 64, kDepth = 48, kTile = 16;

__global__ void sgemm_kernel(const float* a, const float* b, float* c) {
  __shared__ float a_tile[kTile][kTile + 1], b_tile[kTile][kTile];
  const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
  const int row = static_cast<int>(blockIdx.y) * kTile + y;
  const int column = static_cast<int>(blockIdx.x) * kTile + x;
  float sum = 0;
  for (int first = 0; first < kDepth; first += kTile) {
    a_tile[y][x] = a[row * kDepth + first + x];
    b_tile[y][x] = b[(first + y) * kSize + column];
    __syncthreads();
    for (int k = 0; k < kTile; ++k) sum = fma(a_tile[y][k], b_tile[k][x], sum);
    __syncthreads();
  }
  c[row * kSize + column] = sum;
}

TEST(sgemm) {
  Array<float> a(harness::integers<float>(kSize * kDepth, 1), "a");
  Array<float> b(harness::integers<float>(kDepth * kSize, 2), "b"), c(size_t{kSize * kSize}, "c");
  launch(sgemm_kernel, dim3(4, 4), dim3(kTile, kTile), a.data(), b.data(), c.data());
  float sum = 0;
  for (size_t k = 0; k < kDepth; ++k) sum += a[5 * kDepth + k] * b[k * kSize + 33];
  REQUIRE(c[5 * kSize + 33] == sum);
}

// ---- operations of each kind

__global__ void operations_kernel(const float* x, float* y) {
  const float a = x[threadIdx.x];
  float sum = a + 2.0f;                       // 1
  sum *= a - 1.0f;                            // 2
  sum = fma(sum, a, a) / 3.0f;                // 3
  sum = fmax(sum, a);                         // 1
  sum = sum > a ? -sum : sum;                 // none
  y[threadIdx.x] = exp(sum) + sqrt(fabs(a));  // 1, and two special functions
}

TEST(operations) {
  Array<float> x(harness::integers<float>(64, 1), "x"), y(size_t{64}, "y");
  launch(operations_kernel, 1, 64, x.data(), y.data());
}

__global__ void mma_kernel(float* y) {
  float d[4] = {0, 0, 0, 0};
  const uint32_t a[4] = {0, 0, 0, 0}, b[2] = {0, 0};
  simt::mma_m16n8k8_tf32(d, a, b, d);
  simt::mma_m16n8k16_f16(d, a, b, d);
  y[threadIdx.x] = d[0];
}

TEST(matrix_operations) {
  Array<float> y(size_t{64}, "y");
  launch(mma_kernel, 1, 64, y.data());
}

// ---- global memory: 32-byte sectors

__global__ void copy_rows_kernel(const float* x, float* y) {
  for (unsigned r = 0; r < 64; ++r) y[64 * r + threadIdx.x] = x[64 * r + threadIdx.x];
}
__global__ void copy_columns_kernel(const float* x, float* y) {
  for (unsigned r = 0; r < 64; ++r) y[64 * threadIdx.x + r] = x[64 * threadIdx.x + r];
}
__global__ void copy_vectors_kernel(const float* x, float* y) {
  for (unsigned i = threadIdx.x; i < 1024; i += 64)
    reinterpret_cast<float4*>(y)[i] = reinterpret_cast<const float4*>(x)[i];
}
__global__ void copy_shifted_kernel(const float* x, float* y) {
  for (unsigned r = 0; r < 63; ++r) y[64 * r + threadIdx.x] = x[64 * r + threadIdx.x + 1];
}
__global__ void broadcast_kernel(const float* x, float* y) {
  y[threadIdx.x] = x[threadIdx.x / 32];
}

// Some lanes take part in every step, now these, now those.
__global__ void conditional_kernel(const float* x, float* y) {
  float sum = 0;
  for (unsigned r = 0; r < 32; ++r) {
    const float value = x[64 * r + threadIdx.x];
    if ((threadIdx.x / 8 + r) % 3 != 0) sum += value * x[2048 + 64 * r + threadIdx.x];  // some
  }
  y[threadIdx.x] = sum;
}

template <class Kernel>
static void run(Kernel kernel, size_t outputs) {
  // Sectors begin at multiples of 32 bytes.
  static constexpr size_t kFloats = 64 * 64;
  auto* x = static_cast<float*>(simt::allocate(kFloats * 4));
  auto* y = static_cast<float*>(simt::allocate(outputs * 4));
  simt::fill_zero(x, kFloats * 4, nullptr);
  launch(kernel, 1, 64, x, y);
  simt::release(x);
  simt::release(y);
}

TEST(copy_rows) {
  run(copy_rows_kernel, 4096);
}
TEST(copy_columns) {
  run(copy_columns_kernel, 4096);
}
TEST(copy_vectors) {
  run(copy_vectors_kernel, 4096);
}
TEST(copy_shifted) {
  run(copy_shifted_kernel, 4096);
}
TEST(broadcast) {
  run(broadcast_kernel, 64);
}

TEST(conditional_loads) {
  run(conditional_kernel, 64);
}

// ---- shared memory: wavefronts over 32 banks

template <int PADDING>
__global__ void transpose_kernel(const float* x, float* y) {
  __shared__ float tile[32][32 + PADDING];
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (unsigned row = warp; row < 32; row += 2) tile[row][lane] = x[32 * row + lane];  // rows
  __syncthreads();
  for (unsigned row = warp; row < 32; row += 2) y[32 * row + lane] = tile[lane][row];  // columns
}

TEST(transpose_unpadded) {
  run(transpose_kernel<0>, 1024);
}
TEST(transpose_padded) {
  run(transpose_kernel<1>, 1024);
}

// float4 in shared memory: a quarter warp at a time.
__global__ void shared_vectors_kernel(const float* x, float* y) {
  __shared__ float4 s[64];
  const unsigned t = threadIdx.x;
  s[t] = reinterpret_cast<const float4*>(x)[t];
  __syncthreads();
  reinterpret_cast<float4*>(y)[t] = s[63 - t];
}

TEST(shared_vectors) {
  run(shared_vectors_kernel, 256);
}
