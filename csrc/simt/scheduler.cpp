// Threads of a block as fibers. A thread runs until it waits, then switches straight to the next
// runnable lane of its warp, then to the next warp: one switch a wait. A thread that ends hands its
// stack to the next one, so kernels without barriers never switch at all.
#include "simt/scheduler.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>

#include "simt/fiber.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

extern "C" {
__thread uint3 simt_threadIdx, simt_blockIdx;
__thread simt::ConstantDim simt_blockDim, simt_gridDim;
__thread unsigned long long simt_flops, simt_special;
}

namespace simt {

CheckerHooks checker;

namespace {

constexpr size_t kStackBytes = 68 * 1024;  // 17 pages: equal depths fall on different cache sets
constexpr size_t kGuardBytes = 4096;
constexpr size_t kStride = kStackBytes + kGuardBytes;
constexpr size_t kBatch = 32;  // fibers mapped at once
constexpr uintptr_t kStagger = 192;
constexpr unsigned char kPoison = 0xff;  // NaN in every float type

void prepare(Fiber& fiber, size_t index) {
  char* top = fiber.bottom + fiber.size - (index * kStagger) % 2048;
  fiber.saved = prepare_stack(fiber.bottom, top, &fiber);
}

Fiber* new_fiber(Worker& worker) {
  if (worker.free_fibers.empty()) {
    void* memory = mmap(nullptr, kBatch * kStride, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    for (size_t i = 0; i < kBatch; ++i) {
      char* base = static_cast<char*>(memory) + i * kStride;
      mprotect(base, kGuardBytes, PROT_NONE);
      auto* fiber = new Fiber{nullptr, base + kGuardBytes, kStackBytes};
      prepare(*fiber, worker.fibers.size());
      worker.fibers.push_back(fiber);
      worker.free_fibers.push_back(fiber);
    }
  }
  Fiber* fiber = worker.free_fibers.back();
  worker.free_fibers.pop_back();
  return fiber;
}

void switch_fiber(Worker& worker, Fiber& from, Fiber& to) {
  worker.current = &to;
  worker.stack_bottom = to.bottom;
  worker.stack_size = to.size;
  worker.counters.switches++;
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(&fake_stack, to.bottom, to.size);
#endif
  simt_switch(&from.saved, to.saved);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
}

// ---- which thread runs next

int next_bit(uint32_t bits, int after) {  // cyclic
  const uint32_t higher = after >= 31 ? 0 : bits & (~0u << (after + 1));
  return __builtin_ctz(higher ? higher : bits);
}

int nth_bit(uint32_t bits, unsigned n) {
  for (n %= static_cast<unsigned>(__builtin_popcount(bits)); n; --n) bits &= bits - 1;
  return __builtin_ctz(bits);
}

unsigned next_random(Worker& worker) {
  worker.random = worker.random * 6364136223846793005ull + 1442695040888963407ull;
  return static_cast<unsigned>(worker.random >> 33);
}

uint32_t runnable(const Worker& worker, int warp) {
  return worker.ready[warp] | worker.unstarted[warp];
}

int pick(Worker& worker) {  // -1: nothing can run
  if (worker.schedule == Schedule::forward) {
    if (const uint32_t own = runnable(worker, worker.warp))
      return worker.warp * 32 + next_bit(own, worker.lane);
    if (!worker.runnable_warps) return -1;
    const int warp = next_bit(worker.runnable_warps, worker.warp);
    return warp * 32 + next_bit(runnable(worker, warp), 31);
  }
  if (!worker.runnable_warps) return -1;
  if (worker.schedule == Schedule::reverse) {
    const int warp = 31 - __builtin_clz(worker.runnable_warps);
    return warp * 32 + 31 - __builtin_clz(runnable(worker, warp));
  }
  const int warp = nth_bit(worker.runnable_warps, next_random(worker));
  return warp * 32 + nth_bit(runnable(worker, warp), next_random(worker));
}

int pick_or_land(Worker& worker) {
  int thread = pick(worker);
  while (thread < 0 && land_bulk_copy(worker)) thread = pick(worker);
  return thread;
}

// Makes `thread` the running one; true if it starts now and has no fiber yet.
bool take(Worker& worker, int thread) {
  const int warp = thread / 32;
  const uint32_t bit = 1u << (thread % 32);
  const bool fresh = worker.unstarted[warp] & bit;
  worker.unstarted[warp] &= ~bit;
  worker.ready[warp] &= ~bit;
  if (!runnable(worker, warp)) worker.runnable_warps &= ~(1u << warp);
  worker.warp = warp;
  worker.lane = thread % 32;
  simt_threadIdx = worker.thread_index[thread];
  return fresh;
}

// ---- barriers

std::string triple(const uint3& index) {
  return '(' + std::to_string(index.x) + "," + std::to_string(index.y) + "," +
         std::to_string(index.z) + ")";
}

[[noreturn]] void report_deadlock(Worker& worker) {
  const struct {
    const char* what;
    const uint32_t* waiting;
  } kinds[] = {{"__syncthreads at ", worker.at_barrier},
               {"a warp collective at ", worker.in_collective},
               {"an mbarrier wait at ", worker.at_mbarrier}};
  std::string text = "not all threads reached the same point; block " + triple(simt_blockIdx) + ";";
  for (const auto& kind : kinds) {
    std::vector<std::pair<std::string, std::pair<int, int>>> places;  // first thread, how many
    for (int thread = 0; thread < worker.threads; ++thread) {
      if (!(kind.waiting[thread / 32] >> (thread % 32) & 1)) continue;
      const Arrival& own = worker.arrivals[thread];
      const std::string place = kind.what + location(own.file, own.line);
      auto found = std::find_if(places.begin(), places.end(),
                                [&](const auto& entry) { return entry.first == place; });
      if (found == places.end()) found = places.insert(places.end(), {place, {thread, 0}});
      found->second.second++;
    }
    for (const auto& [place, who] : places)
      text += ' ' + std::to_string(who.second) + " threads (first " + std::to_string(who.first) +
              ") wait in " + place + ";";
  }
  text += ' ' + std::to_string(worker.threads - worker.live_threads) + " threads have ended";
  abandon(worker, "deadlock", text);
}

void release_barrier(Worker& worker) {
  if (worker.live_threads < worker.threads) {
    const std::string text = std::to_string(worker.threads - worker.live_threads) + " of " +
                             std::to_string(worker.threads) +
                             " threads ended before the barrier at " +
                             location(worker.barrier_file, worker.barrier_line);
    if (!checker.report) abandon(worker, "early-exit", text);
    checker.report("early-exit", text, text + ", " + describe_thread(worker, worker.thread()));
  }
  if (checker.barrier) checker.barrier(worker);
  for (int warp = 0; warp < worker.warps; ++warp) {
    make_ready(worker, warp, worker.at_barrier[warp]);
    worker.at_barrier[warp] = 0;
  }
  worker.arrived = 0;
  worker.vote_result = worker.vote_sum;
  worker.counters.barriers++;
}

void end_thread(Worker& worker) {
  const int warp = worker.warp;
  worker.live[warp] &= ~(1u << worker.lane);
  worker.live_threads--;
  if (worker.any_async) worker.async_copies[worker.thread()].clear();
  finish_collectives(worker, warp);
  if (!worker.live[warp] && checker.converged) checker.converged(worker, warp);
  if (worker.live_threads && worker.arrived == worker.live_threads) release_barrier(worker);
}

void rebuild_stacks(Worker& worker) {
  worker.free_fibers.clear();
  for (size_t i = 0; i < worker.fibers.size(); ++i) {
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(worker.fibers[i]->bottom, worker.fibers[i]->size);
#endif
    prepare(*worker.fibers[i], i);
    worker.free_fibers.push_back(worker.fibers[i]);
  }
  for (auto& queue : worker.async_copies) queue.clear();
}

__thread Worker* worker_of_this_thread;

struct WorkerOwner {
  ~WorkerOwner() {
    Worker* worker = worker_of_this_thread;
    if (!worker) return;
    for (size_t i = 0; i < worker->fibers.size(); ++i) {
      if (i % kBatch == 0) munmap(worker->fibers[i]->bottom - kGuardBytes, kBatch * kStride);
      delete worker->fibers[i];
    }
    std::free(worker->shared);
    delete worker;
    worker_of_this_thread = nullptr;
  }
  void keep() {}
};
thread_local WorkerOwner owner;

}  // namespace

Worker* this_worker() {
  return worker_of_this_thread;
}

std::string location(const char* file, int line) {
  const std::string path = file ? file : "?";
  return path.substr(path.rfind('/') + 1) + ":" + std::to_string(line);
}

std::string describe_thread(const Worker& worker, int thread) {
  return "block " + triple(simt_blockIdx) + " thread " + triple(worker.thread_index[thread]);
}

void abandon(Worker& worker, const char* kind, const std::string& text) {
  worker.error = std::string(kind) + ": ";
  if (checker.report) {
    checker.report(kind, text, text);
    worker.error += "kernel " + checker.kernel_name(worker) + ": ";
  }
  worker.error += text;
  switch_fiber(worker, *worker.current, worker.main);
  __builtin_unreachable();
}

void fail(const char* what, const char* file, int line) {
  const std::string text = std::string(what) + " at " + location(file, line);
  Worker* worker = this_worker();
  if (!worker || !worker->in_kernel) throw Error(text);
  abandon(*worker, "assertion", text + ", " + describe_thread(*worker, worker->thread()));
}

void make_ready(Worker& worker, int warp, uint32_t lanes) {
  worker.ready[warp] |= lanes;
  if (lanes) worker.runnable_warps |= 1u << warp;
}

void resume_here(Worker& worker, int thread) {
  take(worker, thread);
}

void block_current(Worker& worker) {
  Fiber& from = *worker.current;
  // Under the random schedule a copy may also land early.
  if (worker.schedule == Schedule::random && next_random(worker) % 4 == 0) land_bulk_copy(worker);
  const int thread = pick_or_land(worker);
  if (thread < 0) report_deadlock(worker);
  if (take(worker, thread)) worker.fiber_of[thread] = new_fiber(worker);
  if (worker.fiber_of[thread] != &from) switch_fiber(worker, from, *worker.fiber_of[thread]);
}

int barrier(BarrierVote vote, int predicate, const char* file, int line) {
  Worker& worker = *this_worker();
  Arrival& own = worker.arrivals[worker.thread()];
  own.file = file, own.line = line;
  if (!worker.arrived) {
    worker.barrier_file = file, worker.barrier_line = line, worker.vote = vote;
    worker.vote_sum = vote == BarrierVote::all;
  } else if (worker.barrier_line != line || worker.vote != vote) {
    abandon(worker, "divergent-barrier",
            describe_thread(worker, worker.thread()) + " is at " + location(file, line) +
                " while others wait at " + location(worker.barrier_file, worker.barrier_line));
  }
  const int yes = predicate != 0;
  if (vote == BarrierVote::count) worker.vote_sum += yes;
  if (vote == BarrierVote::all) worker.vote_sum &= yes;
  if (vote == BarrierVote::any) worker.vote_sum |= yes;
  if (++worker.arrived == worker.live_threads) {
    release_barrier(worker);
    resume_here(worker, worker.thread());
  } else {
    worker.at_barrier[worker.warp] |= 1u << worker.lane;
    block_current(worker);
  }
  return worker.vote_result;
}

void* dynamic_shared() {
  return this_worker()->shared;
}

Worker* make_worker() {
  if (worker_of_this_thread) return worker_of_this_thread;
  owner.keep();  // constructs it, so that it is destroyed with the thread
  auto* worker = new Worker();
  worker->shared = static_cast<char*>(std::aligned_alloc(1024, kSharedCapacity));
  if (!worker->shared) throw std::bad_alloc();
  return worker_of_this_thread = worker;
}

void begin_launch(Worker& worker, const Launch& launch, const Options& chosen) {
  worker.launch = &launch;
  worker.error.clear();
  worker.counters = {};
  worker.shared_bytes = launch.shared_bytes;
  worker.any_async = false;
  worker.threads = static_cast<int>(launch.block.x * launch.block.y * launch.block.z);
  worker.warps = (worker.threads + 31) / 32;
  worker.schedule = chosen.schedule;
  worker.random = chosen.seed;
  simt_flops = simt_special = 0;
  simt_blockDim = {launch.block.x, launch.block.y, launch.block.z};
  simt_gridDim = {launch.grid.x, launch.grid.y, launch.grid.z};
  for (int thread = 0; thread < worker.threads; ++thread) {
    const auto t = static_cast<unsigned>(thread);
    worker.thread_index[thread] = {t % launch.block.x, t / launch.block.x % launch.block.y,
                                   t / (launch.block.x * launch.block.y)};
  }
  if (checker.launch_begin) checker.launch_begin(worker);
}

void run_block(Worker& worker, uint3 index) {
  simt_blockIdx = index;
  worker.live_threads = worker.threads;
  worker.arrived = 0;
  worker.runnable_warps = 0;
  for (int warp = 0; warp < worker.warps; ++warp) {
    const int lanes = std::min(32, worker.threads - 32 * warp);
    const uint32_t all = lanes == 32 ? ~0u : (1u << lanes) - 1;
    worker.unstarted[warp] = worker.live[warp] = all;
    worker.ready[warp] = worker.at_barrier[warp] = 0;
    worker.in_collective[warp] = worker.at_mbarrier[warp] = 0;
    worker.runnable_warps |= 1u << warp;
  }
  worker.mbarriers.clear();
  worker.bulk_copies.clear();
  std::fill_n(reinterpret_cast<unsigned char*>(worker.shared), worker.shared_bytes, kPoison);
  if (checker.block_begin) checker.block_begin(worker);
  worker.warp = worker.warps - 1, worker.lane = 31;
  const int first = pick(worker);
  take(worker, first);
  Fiber* fiber = worker.fiber_of[first] = new_fiber(worker);
  worker.in_kernel = true;
  switch_fiber(worker, worker.main, *fiber);
  worker.in_kernel = false;
  worker.counters.blocks++;
  if (!worker.error.empty()) rebuild_stacks(worker);
  if (checker.block_end) checker.block_end(worker);
}

}  // namespace simt

// The whole life of a fiber: one thread of a block after the other.
extern "C" void simt_fiber_main(void* argument) {
  using namespace simt;
  auto& self = *static_cast<Fiber*>(argument);
  Worker& worker = *this_worker();
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
  for (;;) {
    std::string thrown;
    try {
      worker.launch->run_thread(worker.launch->context);
    } catch (const std::exception& error) {
      thrown = error.what();
      thrown += ", " + describe_thread(worker, worker.thread());
    }
    if (!thrown.empty()) abandon(worker, "exception", thrown);
    end_thread(worker);
    const int thread = pick_or_land(worker);
    if (thread < 0) {
      if (worker.live_threads) report_deadlock(worker);
      worker.free_fibers.push_back(&self);
      switch_fiber(worker, self, worker.main);
    } else if (take(worker, thread)) {
      worker.fiber_of[thread] = &self;
    } else {
      worker.free_fibers.push_back(&self);
      switch_fiber(worker, self, *worker.fiber_of[thread]);
    }
  }
}
