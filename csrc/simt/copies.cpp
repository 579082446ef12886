// Asynchronous copies, landed as late as the hardware may land them.
#include <cstring>

#include "simt/worker.h"

namespace simt {
namespace {

constexpr int kPoison = 0xff;  // NaN in every float type

std::string here(const Worker& worker, const char* file, int line) {
  return describe_thread(worker, worker.thread()) + " at " + location(file, line);
}

Mbarrier& find_mbarrier(Worker& worker, const void* address, const char* file, int line) {
  for (Mbarrier& barrier : worker.mbarriers)
    if (barrier.address == address) return barrier;
  abandon(worker, "mbarrier", "used before mbarrier_init: " + here(worker, file, line));
}

void end_phase_if_complete(Worker& worker, Mbarrier& barrier) {
  if (barrier.pending || barrier.bytes) return;
  barrier.phase++;
  barrier.pending = barrier.arrivals;
  for (int warp = 0; warp < worker.warps; ++warp)
    for (uint32_t rest = worker.at_mbarrier[warp]; rest; rest &= rest - 1) {
      const uint32_t lane_bit = rest & -rest;
      const Arrival& waiting = worker.arrivals[warp * 32 + __builtin_ctz(rest)];
      const bool passed = (barrier.phase & 1) != static_cast<unsigned>(waiting.lane_argument);
      if (waiting.fragments != barrier.address || !passed) continue;
      worker.at_mbarrier[warp] &= ~lane_bit;
      make_ready(worker, warp, lane_bit);
    }
}

}  // namespace

void issue_cp_async(void* shared, const void* global, int bytes, int src_bytes, const char* file,
                    int line) {
  Worker& worker = *this_worker();
  const uintptr_t addresses =
      reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(global);
  if (addresses % static_cast<unsigned>(bytes))
    abandon(worker, "misaligned",
            std::to_string(bytes) + "-byte cp.async: " + here(worker, file, line));
  if (checker.access) {
    if (src_bytes) checker.access(global, static_cast<unsigned>(src_bytes), kRead, SIMT_CALLER);
    checker.access(shared, static_cast<unsigned>(bytes), kWrite | kPending, SIMT_CALLER);
  }
  std::memset(shared, kPoison, static_cast<size_t>(bytes));
  worker.any_async = true;
  worker.async_copies[worker.thread()].push_back({static_cast<char*>(shared),
                                                  static_cast<const char*>(global), bytes,
                                                  src_bytes, SIMT_CALLER});
}

void commit_cp_async() {
  Worker& worker = *this_worker();
  worker.any_async = true;
  worker.async_copies[worker.thread()].push_back({nullptr, nullptr, 0, 0, 0});
}

void wait_cp_async(int keep) {
  Worker& worker = *this_worker();
  std::vector<AsyncCopy>& queue = worker.async_copies[worker.thread()];
  size_t end = queue.size();  // of what must have landed: up to the commit before the last `keep`
  for (int groups = 0; end > 0; --end)
    if (!queue[end - 1].target && ++groups > keep) break;
  for (size_t i = 0; i < end; ++i) {
    const AsyncCopy& copy = queue[i];
    if (!copy.target) continue;
    if (checker.access)
      checker.access(copy.target, static_cast<unsigned>(copy.bytes), kWrite | kSilent, copy.pc);
    std::memcpy(copy.target, copy.source, static_cast<size_t>(copy.source_bytes));
    std::memset(copy.target + copy.source_bytes, 0,
                static_cast<size_t>(copy.bytes - copy.source_bytes));
  }
  queue.erase(queue.begin(), queue.begin() + static_cast<long>(end));
}

void init_mbarrier(void* address, int arrivals) {
  Worker& worker = *this_worker();
  const Mbarrier fresh{address, arrivals, arrivals, 0, 0};
  for (Mbarrier& barrier : worker.mbarriers)
    if (barrier.address == address) {
      barrier = fresh;
      return;
    }
  worker.mbarriers.push_back(fresh);
}

void arrive_mbarrier(void* address, unsigned bytes, const char* file, int line) {
  Worker& worker = *this_worker();
  Mbarrier& barrier = find_mbarrier(worker, address, file, line);
  if (!barrier.pending)
    abandon(worker, "mbarrier", "more arrivals than it expects: " + here(worker, file, line));
  if (checker.mbarrier_arrive) checker.mbarrier_arrive(worker, address);
  barrier.bytes += bytes;
  barrier.pending--;
  end_phase_if_complete(worker, barrier);
}

void wait_mbarrier(void* address, unsigned parity, const char* file, int line) {
  Worker& worker = *this_worker();
  if ((find_mbarrier(worker, address, file, line).phase & 1) == parity) {
    Arrival& own = worker.arrivals[worker.thread()];
    own.fragments = address, own.lane_argument = static_cast<int>(parity);
    own.file = file, own.line = line;
    worker.at_mbarrier[worker.warp] |= 1u << worker.lane;
    block_current(worker);
  }
  if (checker.mbarrier_pass) checker.mbarrier_pass(worker, address);
}

void issue_bulk_copy(void* shared, const void* global, unsigned bytes, void* barrier,
                     const char* file, int line) {
  Worker& worker = *this_worker();
  const uintptr_t all =
      reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(global) | bytes;
  if (all % 16)
    abandon(worker, "misaligned",
            "bulk copy: address or size not a multiple of 16: " + here(worker, file, line));
  if (checker.access) {
    checker.access(global, bytes, kRead | kSilent, SIMT_CALLER);
    checker.access(shared, bytes, kWrite | kPending | kSilent, SIMT_CALLER);
  }
  std::memset(shared, kPoison, bytes);
  worker.bulk_copies.push_back({static_cast<char*>(shared), static_cast<const char*>(global), bytes,
                                barrier, SIMT_CALLER, worker.thread(), file, line});
}

bool land_bulk_copy(Worker& worker) {
  if (worker.bulk_copies.empty()) return false;
  const BulkCopy copy = worker.bulk_copies.front();
  worker.bulk_copies.erase(worker.bulk_copies.begin());
  const int warp = worker.warp, lane = worker.lane;
  worker.warp = copy.thread / 32, worker.lane = copy.thread % 32;  // accounted to its issuer
  if (checker.access) checker.access(copy.target, copy.bytes, kWrite | kSilent, copy.pc);
  std::memcpy(copy.target, copy.source, copy.bytes);
  Mbarrier& barrier = find_mbarrier(worker, copy.barrier, copy.file, copy.line);
  if (checker.mbarrier_arrive) checker.mbarrier_arrive(worker, copy.barrier);
  worker.warp = warp, worker.lane = lane;
  barrier.bytes -= copy.bytes;
  end_phase_if_complete(worker, barrier);
  return true;
}

}  // namespace simt
