#include "core/threads.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace lamina {
namespace {

constexpr auto kAwake = std::chrono::microseconds(30);  // back-to-back kernels find workers awake
constexpr int kSpinsPerLook = 32;                       // at the clock
constexpr int kMostThreads = 4096;                      // as set_num_threads says

thread_local bool inside_task = false;

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// One job at a time. Opening it is one store that awake workers see; those asleep are woken, but
// nobody waits for them: a job is over when its tasks are, and the workers that joined have left.
class Pool {
 public:
  void run(int64_t tasks, TaskFunction function, void* context, int threads) {
    std::unique_lock<std::mutex> owner(owner_, std::try_to_lock);
    if (!owner.owns_lock()) return run_inline(tasks, function, context);
    start_workers(threads - 1);
    function_ = function;
    context_ = context;
    threads = static_cast<int>(tasks < threads ? tasks : threads);
    helpers_ = threads - 1;
    deal(tasks, threads);
    const uint64_t job = ++last_job_;
    open_.store(job);
    if (sleepers_.load() > 0) {
      keep_workers_away();
      {
        std::lock_guard<std::mutex> lock(mutex_);
      }  // nobody is between the look and the sleep
      wake_.notify_all();
    }
    work(0);
    open_.store(0);
    for (int spin = 0; joined_.load() != 0; ++spin)
      if (spin < 2000)
        relax();
      else
        std::this_thread::yield();
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  }

  static void run_inline(int64_t tasks, TaskFunction function, void* context) {
    for (int64_t task = 0; task < tasks; ++task) function(context, task);
  }

 private:
  // As many as the system grants: nobody waits for a worker that is not there.
  void start_workers(int count) {
    try {
      while (workers_ < count) {
        std::thread worker([this, id = workers_, seen = last_job_] { serve(id, seen); });
        ++workers_;
        handles_.push_back(worker.native_handle());
        worker.detach();
        avoided_core_ = -1;
      }
    } catch (const std::system_error&) {
    }
  }

  // From the owner's core. A worker that the system wakes there (where the other cores were busy at
  // that moment) would stand in line behind the owner, who takes all tasks and never waits: calls
  // of half a millisecond then run on one core for many calls in a row.
  void keep_workers_away() {
#if defined(__linux__)
    const int core = sched_getcpu();
    if (core < 0 || core == avoided_core_) return;
    avoided_core_ = core;
    cpu_set_t cores;
    if (sched_getaffinity(0, sizeof cores, &cores) != 0 || CPU_COUNT(&cores) < 2) return;
    CPU_CLR(core, &cores);
    for (const pthread_t worker : handles_) pthread_setaffinity_np(worker, sizeof cores, &cores);
#endif
  }

  void serve(int id, uint64_t seen) {
    inside_task = true;
    for (;;) {
      const uint64_t job = next_job(seen);
      seen = job;
      // In this order: the owner closes a job first and then waits for those who joined, so that
      // one of the two sees the other.
      joined_.fetch_add(1);
      if (open_.load() == job && id < helpers_) work(id + 1);
      joined_.fetch_sub(1);
    }
  }

  // The job that is open and was not seen.
  uint64_t next_job(uint64_t seen) {
    const auto is_new = [&](uint64_t job) { return job != 0 && job != seen; };
    const auto asleep_at = std::chrono::steady_clock::now() + kAwake;
    do {
      for (int spin = 0; spin < kSpinsPerLook; ++spin) {
        if (const uint64_t job = open_.load(std::memory_order_acquire); is_new(job)) return job;
        relax();
      }
    } while (std::chrono::steady_clock::now() < asleep_at);
    uint64_t job = 0;
    std::unique_lock<std::mutex> lock(mutex_);
    sleepers_.fetch_add(1);
    wake_.wait(lock, [&] { return is_new(job = open_.load()); });
    sleepers_.fetch_sub(1);
    return job;
  }

  // Each thread begins with a run of tasks of its own, the same in every call of so many: what the
  // last call left in its cache is there. Then it takes the others' tasks.
  void deal(int64_t tasks, int threads) {
    if (static_cast<int>(shares_.size()) < threads)
      std::vector<Share>(static_cast<size_t>(threads)).swap(shares_);
    for (int t = 0; t < threads; ++t) {
      shares_[static_cast<size_t>(t)].next.store(tasks * t / threads, std::memory_order_relaxed);
      shares_[static_cast<size_t>(t)].end = tasks * (t + 1) / threads;
    }
  }

  void work(int thread) {
    const bool was_inside = inside_task;
    inside_task = true;
    for (int k = 0; k <= helpers_; ++k) {
      Share& share = shares_[static_cast<size_t>((thread + k) % (helpers_ + 1))];
      try {
        for (int64_t task; (task = share.next.fetch_add(1, std::memory_order_relaxed)) < share.end;)
          function_(context_, task);
      } catch (...) {  // no memory for a task
        const std::lock_guard<std::mutex> lock(mutex_);
        failure_ = std::current_exception();
      }
    }
    inside_task = was_inside;
  }

  struct Share {
    alignas(64) std::atomic<int64_t> next{0};
    int64_t end = 0;
  };

  std::mutex owner_;  // of the job
  std::mutex mutex_;  // of the sleep, and of failure_
  std::condition_variable wake_;
  uint64_t last_job_ = 0;
  alignas(64) std::atomic<uint64_t> open_{0};  // the job to join, or 0
  std::atomic<int> sleepers_{0};
  TaskFunction function_ = nullptr;  // these do not change between open_ and the last to leave
  void* context_ = nullptr;
  int helpers_ = 0;
  std::exception_ptr failure_;  // of a task, for the owner once all have left
  std::vector<Share> shares_;   // of the owner, then of each helper
  int workers_ = 0;
  std::vector<pthread_t> handles_;  // of the workers, never joined
  int avoided_core_ = -1;
  alignas(64) std::atomic<int> joined_{0};
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
      if (const int count = std::atoi(text); count >= 1) return std::min(count, kMostThreads);
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

bool set_alone(bool alone) {
  return std::exchange(inside_task, alone);
}

void run_tasks(int64_t tasks, TaskFunction function, void* context) {
  const int threads = num_threads();
  if (tasks <= 1 || threads == 1 || inside_task) return Pool::run_inline(tasks, function, context);
  the_pool().run(tasks, function, context, threads);
}

}  // namespace lamina
