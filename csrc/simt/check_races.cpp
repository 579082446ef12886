// Data races and reads of undefined memory.
//
// Happens-before inside a block: the number of barriers passed (the epoch), and between two
// barriers one vector clock a thread, joined by __syncwarp and by mbarriers. Shuffles order
// nothing, as CUDA documents. Blocks of one launch are unordered; launches are ordered. None of
// this depends on the schedule, so neither do the findings (Lamport 1978; Flanagan and Freund,
// FastTrack, 2009).
#include <cstring>

#include "simt/check_internal.h"

namespace simt {
namespace {

constexpr uint16_t kManyWarps = 0xffff, kManyBlocks = 0xfffe;  // Cell::read_warp

uint32_t current_block, first_block_of_launch, epoch;
uint32_t clocks[kMaxThreads][kMaxThreads];  // [thread][what it knows of the other's clock]
uint32_t own_clock[kMaxThreads];            // the diagonal, kept dense
std::unordered_map<const void*, std::vector<uint32_t>> mbarrier_clocks;

// Readers in several warps since the last write, shared memory only.
struct ReadVector {
  uint32_t lanes[kMaxWarps], clock[kMaxWarps];
};
std::vector<ReadVector> read_vectors(1);

void tick(int thread) {
  clocks[thread][thread] = ++own_clock[thread];
}

void join(uint32_t* into, const uint32_t* from, int count) {
  for (int i = 0; i < count; ++i) into[i] = std::max(into[i], from[i]);
}

// Whether an access of `thread` at that time happened before what the current thread does now.
bool ordered(uint32_t block, uint32_t at_epoch, uint32_t clock, int thread, bool shared) {
  if (block != current_block) return shared || block < first_block_of_launch;
  const int me = this_worker()->thread();
  if (at_epoch < epoch || thread == me) return true;
  return clocks[me][thread] >= clock;
}

struct AccessSite {
  Region& region;
  uintptr_t address;
  uint32_t place;
  const std::string& name;
};

void report_race(const char* what, const AccessSite& now, uint32_t other_place,
                 uint32_t other_block, int other_thread) {
  Worker& worker = *this_worker();
  char offset[32];
  std::snprintf(offset, sizeof offset, "+0x%zx", size_t{now.address - now.region.begin});
  const std::string other = other_block != current_block ? "another block"
                            : other_thread >= 0          ? "thread " + std::to_string(other_thread)
                                                         : "several threads";
  add_finding(now.region.shared ? "race-shared" : "race-global",
              std::to_string(now.place) + "/" + std::to_string(other_place) + what,
              std::string(what) + " on " + now.name + (now.region.shared ? "" : offset) + ": " +
                  describe_thread(worker, worker.thread()) + " at " + place_text(now.place) + ", " +
                  other + " at " + place_text(other_place));
}

// A reader of the cell that is not ordered before the current thread; -2 if all are.
int unordered_reader(const Cell& cell, const Region& region) {
  if (cell.read_warp == kManyBlocks || cell.read_block != current_block)
    return cell.read_block >= first_block_of_launch ? -1 : -2;
  if (cell.read_epoch != epoch) return -2;
  const bool many = cell.read_warp == kManyWarps;
  if (many && !cell.read_vector) return -1;
  const int warps = many ? this_worker()->warps : 1;
  for (int i = 0; i < warps; ++i) {
    const int warp = many ? i : cell.read_warp;
    uint32_t lanes = many ? read_vectors[cell.read_vector].lanes[i] : cell.read_lanes;
    const uint32_t clock = many ? read_vectors[cell.read_vector].clock[i] : cell.read_clock;
    for (; lanes; lanes &= lanes - 1) {
      const int reader = warp * 32 + __builtin_ctz(lanes);
      if (!ordered(cell.read_block, cell.read_epoch, clock, reader, region.shared)) return reader;
    }
  }
  return -2;
}

void note_write(Cell& cell, unsigned kind, uint32_t place, int thread) {
  cell.write_block = current_block, cell.write_epoch = epoch;
  cell.write_clock = own_clock[thread], cell.write_place = place;
  cell.write_thread = static_cast<uint16_t>(thread);
  cell.write_atomic = kind & kAtomic;
  cell.initialised = true;
  cell.pending = kind & kPending;
}

void note_read(Cell& cell, bool known_reads, uint32_t place, const Region& region) {
  Worker& worker = *this_worker();
  const auto warp = static_cast<uint16_t>(worker.warp);
  const uint32_t clock = own_clock[worker.thread()];
  if (!known_reads || cell.read_block < first_block_of_launch) {
    cell.read_lanes = 0, cell.read_warp = warp;
  } else if (cell.read_warp == kManyBlocks || cell.read_block != current_block) {
    cell.read_warp = kManyBlocks;
  } else if (cell.read_epoch != epoch) {
    cell.read_lanes = 0, cell.read_warp = warp;
  } else if (cell.read_warp != warp && cell.read_warp != kManyWarps) {
    if (region.shared) {
      if (!cell.read_vector) {
        cell.read_vector = static_cast<uint32_t>(read_vectors.size());
        read_vectors.emplace_back();
      }
      ReadVector& readers = read_vectors[cell.read_vector];
      readers = {};
      readers.lanes[cell.read_warp] = cell.read_lanes;
      readers.clock[cell.read_warp] = cell.read_clock;
    }
    cell.read_warp = kManyWarps;
  } else if (cell.read_warp == warp) {
    // Keep only the readers that are not ordered before this one.
    for (uint32_t lanes = cell.read_lanes; lanes; lanes &= lanes - 1) {
      const int reader = warp * 32 + __builtin_ctz(lanes);
      if (clocks[worker.thread()][reader] >= cell.read_clock) cell.read_lanes &= ~(lanes & -lanes);
    }
  }
  if (cell.read_warp == kManyWarps && cell.read_vector) {
    ReadVector& readers = read_vectors[cell.read_vector];
    if (readers.clock[warp] != clock) readers.lanes[warp] = 0;
    readers.lanes[warp] |= 1u << worker.lane;
    readers.clock[warp] = clock;
  }
  cell.read_lanes |= 1u << worker.lane;
  cell.read_block = current_block, cell.read_epoch = epoch;
  cell.read_clock = clock, cell.read_place = place;
}

void check_cell(Cell& cell, const AccessSite& now, unsigned kind) {
  Worker& worker = *this_worker();
  const bool shared = now.region.shared, write = kind & kWrite, atomic = kind & kAtomic;
  const bool known_write = cell.write_place && (!shared || cell.write_block == current_block);
  const bool known_reads = cell.read_place && (!shared || cell.read_block == current_block);
  const bool defined = shared ? known_write : cell.initialised;
  auto report = [&](const char* finding, const char* what) {
    add_finding(finding, std::to_string(now.place),
                what + now.name + ": " + describe_thread(worker, worker.thread()) + " at " +
                    place_text(now.place));
  };
  if ((!write || atomic) && !defined)
    report("uninitialised", "reads never-written ");
  else if (!write && cell.pending && known_write)
    report("pending-copy", "reads, without a wait, the target of an asynchronous copy in ");
  else if (write && !(kind & kSilent) && cell.pending && known_write)  // silent: the copy lands
    report("pending-copy", "writes, without a wait, to the target of an asynchronous copy in ");
  const bool both_atomic = atomic && cell.write_atomic;
  if (known_write && !both_atomic &&
      !ordered(cell.write_block, cell.write_epoch, cell.write_clock, cell.write_thread, shared))
    report_race(write ? "write/write race" : "read-after-write race", now, cell.write_place,
                cell.write_block, cell.write_thread);
  if (!write) return note_read(cell, known_reads, now.place, now.region);
  if (const int reader = known_reads ? unordered_reader(cell, now.region) : -2; reader != -2)
    report_race("write-after-read race", now, cell.read_place, cell.read_block, reader);
  note_write(cell, kind, now.place, worker.thread());
}

}  // namespace

void check_access(Region& region, uintptr_t address, unsigned bytes, unsigned kind, uint32_t place,
                  const std::string& name) {
  const AccessSite now{region, address, place, name};
  region.for_each_cell(address, bytes, [&](Cell& cell) { check_cell(cell, now, kind); });
}

void begin_launch_order() {
  first_block_of_launch = current_block + 1;
}

void begin_block_order() {
  if (!own_clock[0])
    for (int thread = 0; thread < kMaxThreads; ++thread) tick(thread);
  ++current_block;
  ++epoch;
  mbarrier_clocks.clear();
}

void order_barrier() {
  ++epoch;
}

void order_syncwarp(Worker& worker, int warp, uint32_t lanes) {
  static uint32_t joined[kMaxThreads];
  std::memset(joined, 0, sizeof joined);
  const auto known = static_cast<size_t>(worker.threads);
  for (uint32_t rest = lanes; rest; rest &= rest - 1)
    join(joined, clocks[warp * 32 + __builtin_ctz(rest)], worker.threads);
  for (uint32_t rest = lanes; rest; rest &= rest - 1) {
    const int thread = warp * 32 + __builtin_ctz(rest);
    std::memcpy(clocks[thread], joined, known * sizeof(uint32_t));
    clocks[thread][thread] = own_clock[thread];
    tick(thread);
  }
}

void order_mbarrier_arrive(Worker& worker, const void* barrier) {
  std::vector<uint32_t>& released = mbarrier_clocks[barrier];
  released.resize(kMaxThreads);
  join(released.data(), clocks[worker.thread()], worker.threads);
  tick(worker.thread());
}

void order_mbarrier_pass(Worker& worker, const void* barrier) {
  if (const auto found = mbarrier_clocks.find(barrier); found != mbarrier_clocks.end())
    join(clocks[worker.thread()], found->second.data(), worker.threads);
}

}  // namespace simt
