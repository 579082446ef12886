// Launches: what may be launched and from where, and that an error leaves nothing behind.
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

using harness::Array;
using harness::error_of;
using harness::launch;

// Every thread takes part in barriers and shuffles, so that a fault leaves many waiting.
__global__ void faulty_kernel(int fault, int* y) {
  __shared__ int s[128];
  const int t = static_cast<int>(threadIdx.x);
  s[t] = t;
  __syncthreads();
  assert(fault != 1 || t != 77);
  if (fault == 2 && t == 40) throw std::runtime_error("thrown by a thread");
  int value = s[127 - t] + __shfl_xor_sync(0xffffffffu, t, 1);
  __syncthreads();
  y[blockIdx.x * blockDim.x + threadIdx.x] = value;
}

static bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

static void require_good_launch() {
  Array<int> y(256, "y");
  launch(faulty_kernel, 2, 128, 0, y.data());
  for (size_t i = 0; i < 256; ++i) {
    const int t = static_cast<int>(i) % 128;
    REQUIRE(y[i] == 127 - t + (t ^ 1));
  }
}

TEST(errors_leave_nothing_behind) {
  for (int round = 0; round < 20; ++round) {
    Array<int> y(std::vector<int>(256), "y", simt::Contents::in_out);
    const int fault = 1 + round % 2;
    const std::string error = error_of([&] { launch(faulty_kernel, 2, 128, fault, y.data()); });
    REQUIRE(contains(error, fault == 1 ? "assertion failed: fault != 1 || t != 77 at launches.cu:"
                                       : "thrown by a thread"));
    REQUIRE(contains(error, fault == 1 ? "thread (77,0,0)" : "thread (40,0,0)"));
    require_good_launch();
  }
}

__global__ void index_kernel(unsigned* y) {
  const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  y[block * threads + thread] = block * threads + thread;
}

TEST(invalid_configurations) {
  const auto error = [](dim3 grid, dim3 block, size_t shared) {
    return error_of([=] { simt::launch(index_kernel, grid, block, shared, nullptr, nullptr); });
  };
  REQUIRE(error(1, 0, 0) == "invalid block size (0,1,1)");
  REQUIRE(error(1, 1025, 0) == "invalid block size (1025,1,1)");
  REQUIRE(error(1, dim3(32, 33), 0) == "invalid block size (32,33,1)");
  REQUIRE(error(1, dim3(1, 1, 65), 0) == "invalid block size (1,1,65)");
  REQUIRE(error(0, 32, 0) == "invalid grid size (0,1,1)");
  REQUIRE(error(dim3(1, 65536), 32, 0) == "invalid grid size (1,65536,1)");
  REQUIRE(error(dim3(1, 1, 65536), 32, 0) == "invalid grid size (1,1,65536)");
  REQUIRE(error(0x80000000u, 32, 0) == "invalid grid size (2147483648,1,1)");
  REQUIRE(contains(error(1, 32, 227 * 1024 + 1), "too much dynamic shared memory: 232449 bytes"));
}

TEST(blocks_of_every_shape) {
  for (const dim3 block : {dim3(1), dim3(33), dim3(1024), dim3(7, 5, 3), dim3(2, 2, 64)})
    for (const dim3 grid : {dim3(1), dim3(5), dim3(2, 3, 4)}) {
      const size_t size = size_t{1} * block.x * block.y * block.z * grid.x * grid.y * grid.z;
      Array<unsigned> y(size, "y");
      launch(index_kernel, grid, block, y.data());
      for (size_t i = 0; i < size; ++i) REQUIRE(y[i] == i);
    }
}

__global__ void scale_kernel(long long factor, double offset, const int* x, int* y) {
  y[threadIdx.x] = static_cast<int>(factor * x[threadIdx.x] + static_cast<long long>(offset));
}

TEST(arguments_are_converted) {
  Array<int> x(harness::counting<int>(8), "x"), y(size_t{8}, "y");
  launch(scale_kernel, 1, 8, 3, 4, x.data(), y.data());
  for (size_t i = 0; i < 8; ++i) REQUIRE(y[i] == static_cast<int>(3 * i + 4));
}

// ---- where launches come from

TEST(several_host_threads) {
  std::vector<std::string> failures(6);
  std::vector<std::thread> threads;
  for (std::string& failure : failures)
    threads.emplace_back([&failure] {
      try {
        for (int round = 0; round < 10; ++round) require_good_launch();
      } catch (const std::exception& error) {
        failure = error.what();
      }
    });
  for (std::thread& thread : threads) thread.join();
  for (const std::string& failure : failures) REQUIRE(failure.empty());
}

TEST(after_fork) {
  require_good_launch();
  const pid_t child = fork();
  if (child == 0) {
    try {
      require_good_launch();
      _exit(0);
    } catch (...) {
      _exit(1);
    }
  }
  int status = -1;
  waitpid(child, &status, 0);
  REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  require_good_launch();
}

__global__ void nesting_kernel(int* y) {
  launch(faulty_kernel, 2, 128, 0, y);
}

TEST(launch_inside_a_kernel) {
  Array<int> y(std::vector<int>(256), "y", simt::Contents::in_out);
  const std::string error = error_of([&] { launch(nesting_kernel, 1, 1, y.data()); });
  REQUIRE(contains(error, "launch from inside a kernel"));
  require_good_launch();
}

// A thread's stack holds a kernel's local arrays, and an overrun hits a guard page, not a
// neighbour.
__global__ void local_arrays_kernel(int* y) {
  volatile int local[8192];
  for (int i = 0; i < 8192; ++i) local[i] = static_cast<int>(threadIdx.x) + i;
  __syncthreads();
  int sum = 0;
  for (int i = 0; i < 8192; ++i) sum += local[i] & 1;
  y[threadIdx.x] = sum;
}

TEST(local_arrays) {
  Array<int> y(64, "y");
  launch(local_arrays_kernel, 1, 64, y.data());
  for (size_t i = 0; i < 64; ++i) REQUIRE(y[i] == 4096);
}
