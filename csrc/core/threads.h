// A persistent pool of worker threads.
//
// Kernels split their work into tasks whose number and content depend on the shapes alone, never on
// the number of threads; workers take task after task. Results are therefore the same bits for any
// number of threads. A call from a worker, or while another Python thread uses the pool, runs its
// tasks on the calling thread. What a task throws, the call throws when all threads have left it;
// other tasks may have run. A forked child starts a pool of its own.
#pragma once

#include <cstdint>
#include <type_traits>

namespace lamina {

int num_threads();
void set_num_threads(int count);  // count >= 1

// Whether run_tasks on this thread keeps to this thread, as it always does inside a task. For calls
// too small to share. Returns what was set before.
bool set_alone(bool alone);

using TaskFunction = void (*)(void* context, int64_t task);
void run_tasks(int64_t tasks, TaskFunction function, void* context);

// Calls body(task) for every task in [0, tasks).
template <class Body>
[[gnu::always_inline]] inline void parallel_for(int64_t tasks, Body&& body) {
  auto call = [](void* context, int64_t task) {
    (*static_cast<std::remove_reference_t<Body>*>(context))(task);
  };
  run_tasks(tasks, call, const_cast<void*>(static_cast<const void*>(&body)));
}

// Calls body(begin, end) over [0, items) in ranges of `grain` items (the last may be shorter).
template <class Body>
[[gnu::always_inline]] inline void parallel_ranges(int64_t items, int64_t grain, Body&& body) {
  const int64_t tasks = (items + grain - 1) / grain;
  parallel_for(tasks, [&](int64_t task) {
    const int64_t begin = task * grain;
    body(begin, begin + grain < items ? begin + grain : items);
  });
}

}  // namespace lamina
