// The checking build's hooks. Kernels are compiled with -fsanitize=thread, but linked with the
// functions at the end of this file in place of the sanitizer's library: every load and store of a
// kernel arrives here with its address. Kernel sources stay unchanged.
#include "simt/check.h"

#include <map>
#include <mutex>

#include "simt/check_internal.h"
#include "simt/source_lines.h"

namespace simt {
namespace {

std::vector<uintptr_t> places(1);
std::vector<std::pair<uintptr_t, uint32_t>> place_table(1 << 14);  // open addressing

// Where the table has that instruction, or has room for it.
std::pair<uintptr_t, uint32_t>* find_slot(uintptr_t pc) {
  const size_t mask = place_table.size() - 1;
  size_t slot = (pc * 0x9e3779b97f4a7c15ull) >> 32 & mask;
  while (place_table[slot].first && place_table[slot].first != pc) slot = (slot + 1) & mask;
  return &place_table[slot];
}

const void* last_kernel;

std::mutex mutex;  // of the findings: launches run on one thread, readers on others
std::vector<Finding> found;
std::map<std::string, size_t> found_by_key;

void on_access(const void* pointer, unsigned bytes, unsigned kind, uintptr_t pc) {
  Worker& worker = *this_worker();
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  if (address - reinterpret_cast<uintptr_t>(worker.stack_bottom) < worker.stack_size) return;
  const uint32_t place = place_of(pc);
  const std::string* name = nullptr;
  Region* region = find_region(address, bytes, kind, place, &name);
  if (!region) return;
  // Whole vectors only: the source of an asynchronous copy may have any number of bytes.
  if (bytes <= 16 && !(bytes & (bytes - 1)) && address % bytes)
    fatal_finding("misaligned", place, std::to_string(bytes) + "-byte access to " + *name);
  if ((kind & kWrite) && !region->shared && region->contents == Contents::input)
    add_finding("read-only", std::to_string(place),
                "writes the input " + *name + ": " + describe_thread(worker, worker.thread()) +
                    " at " + place_text(place));
  check_access(*region, address, bytes, kind, place, *name);
  if (kind & kSilent) return;
  // Sectors are counted as if arrays began at multiples of 32 bytes, as a GPU's do, but for views
  // into the middle of a vector: the host's allocator would decide otherwise.
  const uintptr_t base = region->shared ? 0 : region->begin - region->begin % 16;
  record_request(address - base, bytes, kind, place, region->shared);
}

void end_all_requests(Worker& worker) {
  for (int warp = 0; warp < worker.warps; ++warp) end_requests(worker, warp);
}

const bool installed = [] {
  checker.launch_begin = [](Worker& worker) {
    last_kernel = worker.launch->kernel;
    static Worker* adopted = nullptr;
    if (adopted != &worker) adopt_thread(worker);
    adopted = &worker;
    begin_launch_order();
  };
  checker.block_begin = [](Worker&) {
    begin_block_order();
    forget_touched_shared();
  };
  checker.block_end = end_all_requests;
  checker.barrier = [](Worker& worker) {
    order_barrier();
    end_all_requests(worker);
  };
  checker.converged = end_requests;
  checker.syncwarp = order_syncwarp;
  checker.mbarrier_arrive = order_mbarrier_arrive;
  checker.mbarrier_pass = order_mbarrier_pass;
  checker.access = on_access;
  checker.report = add_finding;
  checker.kernel_name = [](const Worker& worker) { return function_name(worker.launch->kernel); };
  return true;
}();

}  // namespace

uint32_t place_of(uintptr_t pc) {
  auto [slot, place] = *find_slot(pc);
  if (slot == pc) return place;
  if (places.size() > place_table.size() / 2) {
    place_table.assign(2 * place_table.size(), {});
    for (uint32_t known = 1; known < places.size(); ++known)
      *find_slot(places[known]) = {places[known], known};
  }
  place = static_cast<uint32_t>(places.size());
  *find_slot(pc) = {pc, place};
  places.push_back(pc);
  return place;
}

uintptr_t place_pc(uint32_t place) {
  return places[place];
}

std::string place_text(uint32_t place) {
  return source_line(places[place]).text();
}

void add_finding(const char* kind, const std::string& key, const std::string& text) {
  std::lock_guard<std::mutex> lock(mutex);
  const std::string full_key = std::string(kind) + key + std::to_string(uintptr_t(last_kernel));
  const auto [entry, fresh] = found_by_key.emplace(full_key, found.size());
  if (!fresh) {
    found[entry->second].count++;
    return;
  }
  found.push_back({kind, last_kernel ? function_name(last_kernel) : "", text, 1});
}

void fatal_finding(const char* kind, uint32_t place, const std::string& text) {
  Worker& worker = *this_worker();
  abandon(worker, kind,
          text + ": " + describe_thread(worker, worker.thread()) + " at " + place_text(place));
}

std::vector<Finding> findings() {
  std::lock_guard<std::mutex> lock(mutex);
  return found;
}

void clear_check() {
  std::lock_guard<std::mutex> lock(mutex);
  found.clear();
  found_by_key.clear();
  clear_requests();
}

}  // namespace simt

// ---- what -fsanitize=thread calls

namespace {

inline void hook(const void* pointer, unsigned bytes, unsigned kind, uintptr_t pc) {
  simt::Worker* worker = simt::this_worker();
  if (worker && worker->in_kernel) simt::on_access(pointer, bytes, kind, pc);
}

// Copies of whole objects; nvcc would move words.
inline void hook_range(const void* pointer, unsigned long bytes, unsigned kind, uintptr_t pc) {
  for (unsigned long at = 0; at < bytes; at += 4)
    hook(static_cast<const char*>(pointer) + at,
         bytes - at < 4 ? static_cast<unsigned>(bytes - at) : 4, kind, pc);
}

}  // namespace

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
#define SIMT_HOOKS(bytes)                       \
  void __tsan_read##bytes(void* p) {            \
    hook(p, bytes, simt::kRead, SIMT_CALLER);   \
  }                                             \
  void __tsan_write##bytes(void* p) {           \
    hook(p, bytes, simt::kWrite, SIMT_CALLER);  \
  }                                             \
  void __tsan_volatile_read##bytes(void* p) {   \
    hook(p, bytes, simt::kRead, SIMT_CALLER);   \
  }                                             \
  void __tsan_volatile_write##bytes(void* p) {  \
    hook(p, bytes, simt::kWrite, SIMT_CALLER);  \
  }                                             \
  void __tsan_unaligned_read##bytes(void* p) {  \
    hook(p, bytes, simt::kRead, SIMT_CALLER);   \
  }                                             \
  void __tsan_unaligned_write##bytes(void* p) { \
    hook(p, bytes, simt::kWrite, SIMT_CALLER);  \
  }
SIMT_HOOKS(1)
SIMT_HOOKS(2)
SIMT_HOOKS(4)
SIMT_HOOKS(8)
SIMT_HOOKS(16)
#undef SIMT_HOOKS
void __tsan_read_range(void* p, unsigned long bytes) {
  hook_range(p, bytes, simt::kRead, SIMT_CALLER);
}
void __tsan_write_range(void* p, unsigned long bytes) {
  hook_range(p, bytes, simt::kWrite, SIMT_CALLER);
}

// ---- what -fsanitize=bounds,shift,... calls; every argument starts with the source position
struct SourcePosition {
  const char* file;
  uint32_t line, column;
};
#define SIMT_UNDEFINED(name, what)                       \
  void __ubsan_handle_##name(const SourcePosition* at) { \
    undefined_behaviour(what, *at);                      \
  }
static void undefined_behaviour(const char* what, const SourcePosition& at) {
  using namespace simt;
  const std::string text =
      std::string(what) + " at " + location(at.file, static_cast<int>(at.line));
  Worker* worker = this_worker();
  if (!worker || !worker->in_kernel) throw Error(text);
  abandon(*worker, "undefined", text + ", " + describe_thread(*worker, worker->thread()));
}
SIMT_UNDEFINED(out_of_bounds, "array index out of bounds")
SIMT_UNDEFINED(shift_out_of_bounds, "shift out of bounds")
SIMT_UNDEFINED(add_overflow, "signed overflow")
SIMT_UNDEFINED(sub_overflow, "signed overflow")
SIMT_UNDEFINED(mul_overflow, "signed overflow")
SIMT_UNDEFINED(negate_overflow, "signed overflow")
SIMT_UNDEFINED(divrem_overflow, "division by zero or overflow")
#undef SIMT_UNDEFINED
}
