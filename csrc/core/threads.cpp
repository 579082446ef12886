#include "core/threads.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <vector>

namespace lamina {
namespace {

constexpr int kSpins = 2000;  // about 20 us: back-to-back kernels find their workers awake

thread_local bool inside_task = false;

class Pool {
 public:
  void run(int64_t tasks, TaskFunction function, void* context, int threads) {
    std::unique_lock<std::mutex> owner(owner_, std::try_to_lock);
    if (!owner.owns_lock()) return run_inline(tasks, function, context);
    start_workers(threads - 1);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      function_ = function;
      context_ = context;
      tasks_ = tasks;
      next_.store(0, std::memory_order_relaxed);
      helpers_ = static_cast<int>(tasks - 1 < threads - 1 ? tasks - 1 : threads - 1);
      pending_.store(helpers_, std::memory_order_relaxed);
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    work();
    for (int spin = 0; pending_.load(std::memory_order_acquire) != 0; ++spin)
      if (spin > kSpins) std::this_thread::yield();
  }

  static void run_inline(int64_t tasks, TaskFunction function, void* context) {
    for (int64_t task = 0; task < tasks; ++task) function(context, task);
  }

 private:
  void start_workers(int count) {
    while (static_cast<int>(workers_) < count) {
      const int id = workers_++;
      const uint64_t seen = generation_.load(std::memory_order_relaxed);
      std::thread([this, id, seen] { serve(id, seen); }).detach();
    }
  }

  void serve(int id, uint64_t seen) {
    inside_task = true;
    for (;;) {
      for (int spin = 0; spin < kSpins && generation_.load(std::memory_order_acquire) == seen;
           ++spin)
        relax();
      bool mine;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return generation_.load(std::memory_order_relaxed) != seen; });
        seen = generation_.load(std::memory_order_relaxed);
        mine = id < helpers_;
      }
      if (!mine) continue;
      work();
      pending_.fetch_sub(1, std::memory_order_release);
    }
  }

  void work() {
    const bool was_inside = inside_task;
    inside_task = true;
    for (int64_t task; (task = next_.fetch_add(1, std::memory_order_relaxed)) < tasks_;)
      function_(context_, task);
    inside_task = was_inside;
  }

  static void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }

  std::mutex owner_;  // one job at a time
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<uint64_t> generation_{0};
  std::atomic<int64_t> next_{0};
  std::atomic<int> pending_{0};
  TaskFunction function_ = nullptr;
  void* context_ = nullptr;
  int64_t tasks_ = 0;
  int helpers_ = 0;
  int workers_ = 0;
};

// Never destroyed: detached workers may outlive static destructors. Replaced in a forked child,
// where the parent's workers do not exist.
Pool* pool = nullptr;
std::once_flag pool_once;

Pool& the_pool() {
  std::call_once(pool_once, [] {
    pool = new Pool;
    pthread_atfork(nullptr, nullptr, [] { pool = new Pool; });
  });
  return *pool;
}

int available_cores() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  const unsigned count = std::thread::hardware_concurrency();
  return count == 0 ? 1 : static_cast<int>(count);
}

int default_threads() {
  for (const char* name : {"LAMINA_NUM_THREADS", "OMP_NUM_THREADS"})
    if (const char* text = std::getenv(name))
      if (const int count = std::atoi(text); count >= 1) return count;
  return available_cores();
}

std::atomic<int> thread_count{0};

}  // namespace

int num_threads() {
  int count = thread_count.load(std::memory_order_relaxed);
  if (count == 0) thread_count.store(count = default_threads(), std::memory_order_relaxed);
  return count;
}

void set_num_threads(int count) {
  thread_count.store(count, std::memory_order_relaxed);
}

void run_tasks(int64_t tasks, TaskFunction function, void* context) {
  const int threads = num_threads();
  if (tasks <= 1 || threads == 1 || inside_task) return Pool::run_inline(tasks, function, context);
  the_pool().run(tasks, function, context, threads);
}

}  // namespace lamina
