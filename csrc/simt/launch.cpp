// Launches: the blocks of a grid, shared out over OS threads.
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

#include "simt/scheduler.h"

namespace simt {
namespace {

Counters total_counters;
std::mutex total_mutex;

struct Job {
  const Launch& launch;
  const Options chosen;
  uint64_t blocks;
  std::atomic<uint64_t> next{0};
  std::mutex mutex;
  std::string error;
};

void take_blocks(Job& job) {
  Worker& worker = *make_worker();
  begin_launch(worker, job.launch, job.chosen);
  const dim3 grid = job.launch.grid;
  for (uint64_t i; worker.error.empty() && (i = job.next.fetch_add(1)) < job.blocks;)
    run_block(worker,
              {static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y),
               static_cast<unsigned>(i / (uint64_t{grid.x} * grid.y))});
  {
    std::lock_guard<std::mutex> lock(job.mutex);
    if (!worker.error.empty() && job.error.empty()) {
      job.error = worker.error;
      job.next = job.blocks;
    }
  }
  std::lock_guard<std::mutex> lock(total_mutex);
  total_counters.blocks += worker.counters.blocks;
  total_counters.switches += worker.counters.switches;
  total_counters.barriers += worker.counters.barriers;
  total_counters.collectives += worker.counters.collectives;
  total_counters.mma_flops += worker.counters.mma_flops;
  total_counters.flops += simt_flops;
  total_counters.special += simt_special;
}

// Helpers that wait for launches. One launch has them at a time.
class Pool {
 public:
  // The launching thread works too; false, and nothing done, if another launch has the helpers.
  bool try_share(Job& job, int helpers) {
    std::unique_lock<std::mutex> use(in_use_, std::try_to_lock);
    if (!use.owns_lock()) return false;
    start(job, helpers);
    take_blocks(job);
    wait();
    return true;
  }

  // No launch of the checking build runs until the lock goes.
  std::unique_lock<std::mutex> pause() { return std::unique_lock<std::mutex>(in_use_); }

  // All blocks run on the first helper.
  void run_on_helper(Job& job) {
    std::lock_guard<std::mutex> use(in_use_);
    start(job, 1);
    wait();
  }

 private:
  void start(Job& job, int helpers) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      while (static_cast<int>(threads_.size()) < helpers) {
        const int index = static_cast<int>(threads_.size());
        threads_.emplace_back([this, index] { serve(index); });
      }
      job_ = &job;
      wanted_ = running_ = helpers;
      generation_++;
    }
    wake_.notify_all();
  }

  void wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [&] { return running_ == 0; });
  }

  void serve(int index) {
    uint64_t seen = 0;
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return generation_ != seen; });
      seen = generation_;
      if (index >= wanted_) continue;
      Job& job = *job_;
      lock.unlock();
      take_blocks(job);
      lock.lock();
      if (--running_ == 0) done_.notify_all();
    }
  }

  std::mutex in_use_, mutex_;
  std::condition_variable wake_, done_;
  std::vector<std::thread> threads_;
  Job* job_ = nullptr;
  uint64_t generation_ = 0;
  int wanted_ = 0, running_ = 0;
};

// Never destroyed: helpers sleep until the process ends. A forked child has none of its parent's
// threads and makes a pool of its own.
Pool& pool() {
  static std::mutex mutex;
  static Pool* pool = nullptr;
  static pid_t owner = 0;
  std::lock_guard<std::mutex> lock(mutex);
  if (!pool || owner != getpid()) {
    pool = new Pool();
    owner = getpid();
  }
  return *pool;
}

std::string triple(dim3 size) {
  return "(" + std::to_string(size.x) + "," + std::to_string(size.y) + "," +
         std::to_string(size.z) + ")";
}

uint64_t checked_blocks(const Launch& launch) {
  const dim3 grid = launch.grid, block = launch.block;
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (!threads || threads > kMaxThreads || block.z > 64)
    throw Error("invalid block size " + triple(block));
  if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    throw Error("invalid grid size " + triple(grid));
  if (launch.shared_bytes > kMaxShared)
    throw Error("too much dynamic shared memory: " + std::to_string(launch.shared_bytes) +
                " bytes");
  return uint64_t{grid.x} * grid.y * grid.z;
}

}  // namespace

Options& options() {
  static Options chosen;
  return chosen;
}

Counters counters() {
  std::lock_guard<std::mutex> lock(total_mutex);
  return total_counters;
}

void reset_counters() {
  std::lock_guard<std::mutex> lock(total_mutex);
  total_counters = {};
}

void run(const Launch& launch) {
  if (const Worker* worker = this_worker(); worker && worker->in_kernel)
    throw Error("launch from inside a kernel");
  Job job{launch, options(), checked_blocks(launch), {}, {}, {}};
  {
    std::lock_guard<std::mutex> lock(total_mutex);
    total_counters.launches++;
  }
  const auto threads = std::min<uint64_t>(job.blocks, static_cast<uint64_t>(job.chosen.threads));
  if (checker.access)
    pool().run_on_helper(job);  // the shadow of shared memory belongs to one OS thread
  else if (threads <= 1 || !pool().try_share(job, static_cast<int>(threads) - 1))
    take_blocks(job);
  if (!job.error.empty()) throw Error(job.error);
}

// Other host threads may be running a kernel: what the checker knows of memory changes between
// launches only.

void fill_zero(void* target, size_t bytes, cudaStream_t) {
  std::memset(target, 0, bytes);
  if (!checker.host_wrote) return;
  const auto lock = pool().pause();
  checker.host_wrote(target, bytes);
}

void register_memory(const void* data, size_t bytes, Contents contents, const char* name) {
  if (!checker.register_memory) return;
  const auto lock = pool().pause();
  checker.register_memory(data, bytes, contents, name);
}

void unregister_memory(const void* data) {
  if (!checker.unregister_memory) return;
  const auto lock = pool().pause();
  checker.unregister_memory(data);
}

void* allocate(size_t bytes) {
  void* data = nullptr;
  if (posix_memalign(&data, 256, std::max<size_t>(bytes, 1))) throw std::bad_alloc();
  std::memset(data, 0xff, bytes);
  register_memory(data, bytes, Contents::output, "workspace");
  return data;
}

void release(void* data) {
  unregister_memory(data);
  std::free(data);
}

}  // namespace simt
