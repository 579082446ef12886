// Every byte a kernel may touch: the host's arrays, workspaces, dynamic and static shared memory.
//
// Static __shared__ arrays are thread-local variables of the library that holds the kernels; their
// names and extents come from its symbol table.
#include <cxxabi.h>
#include <elf.h>
#include <link.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>

#include "simt/check_internal.h"

namespace simt {
namespace {

struct SharedArray {
  uintptr_t offset, size;
  std::string name;
  bool is_shared, touched;  // other thread-local variables are not watched
};

struct SharedModule {
  Region region;
  std::vector<SharedArray> arrays;  // by offset
};

std::vector<std::unique_ptr<SharedModule>> static_shared;
Region dynamic_region;
std::vector<std::unique_ptr<Region>> global;  // by address
Region* last_found;
const Worker* adopted;
std::vector<std::pair<uintptr_t, uintptr_t>> module_data;  // .data, .rodata: not watched

std::vector<SharedArray> thread_local_symbols(const char* path) {
  std::vector<SharedArray> found;
  std::ifstream file(path, std::ios::binary);
  const std::string image((std::istreambuf_iterator<char>(file)), {});
  if (image.size() < sizeof(Elf64_Ehdr)) return found;
  const auto* header = reinterpret_cast<const Elf64_Ehdr*>(image.data());
  const auto* sections = reinterpret_cast<const Elf64_Shdr*>(image.data() + header->e_shoff);
  for (int i = 0; i < header->e_shnum; ++i) {
    if (sections[i].sh_type != SHT_SYMTAB) continue;
    const char* names = image.data() + sections[sections[i].sh_link].sh_offset;
    const auto* symbols = reinterpret_cast<const Elf64_Sym*>(image.data() + sections[i].sh_offset);
    for (size_t k = 0; k < sections[i].sh_size / sizeof(Elf64_Sym); ++k) {
      if (ELF64_ST_TYPE(symbols[k].st_info) != STT_TLS || !symbols[k].st_size) continue;
      const char* mangled = names + symbols[k].st_name;
      int status = 0;
      std::unique_ptr<char, void (*)(void*)> demangled(
          abi::__cxa_demangle(mangled, nullptr, nullptr, &status), &std::free);
      std::string name = demangled ? demangled.get() : mangled;
      if (const size_t colons = name.rfind("::"); colons != std::string::npos)
        name.erase(0, colons + 2);
      const bool local_to_function = std::strncmp(mangled, "_ZZ", 3) == 0;
      found.push_back({symbols[k].st_value, symbols[k].st_size, "__shared__ " + name,
                       local_to_function, false});
    }
  }
  std::sort(found.begin(), found.end(),
            [](const auto& a, const auto& b) { return a.offset < b.offset; });
  return found;
}

int adopt_module(dl_phdr_info* info, size_t, void*) {
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& header = info->dlpi_phdr[i];
    const uintptr_t begin = info->dlpi_addr + header.p_vaddr;
    if (header.p_type == PT_LOAD) module_data.push_back({begin, begin + header.p_memsz});
    if (header.p_type != PT_TLS || !info->dlpi_tls_data) continue;
    auto module = std::make_unique<SharedModule>();
    module->arrays = thread_local_symbols(*info->dlpi_name ? info->dlpi_name : "/proc/self/exe");
    module->region.begin = reinterpret_cast<uintptr_t>(info->dlpi_tls_data);
    module->region.end = module->region.begin + header.p_memsz;
    module->region.shared = true;
    if (!module->arrays.empty()) module->region.allocate();
    static_shared.push_back(std::move(module));
  }
  return 0;
}

Region* find_global(uintptr_t address) {
  if (last_found && last_found->contains(address)) return last_found;
  auto after =
      std::upper_bound(global.begin(), global.end(), address,
                       [](uintptr_t value, const auto& region) { return value < region->begin; });
  // Arrays may overlap: the last one that begins before the address need not be the one it is in.
  while (after != global.begin())
    if (Region* region = (--after)->get(); region->contains(address)) return last_found = region;
  return nullptr;
}

[[noreturn]] void outside(const std::string& what, uint32_t place) {
  fatal_finding("out-of-bounds", place, what);
}

// The static array that holds the address; null for other thread-local variables.
SharedArray* find_static(SharedModule& module, uintptr_t address) {
  const uintptr_t offset = address - module.region.begin;
  auto after = std::upper_bound(
      module.arrays.begin(), module.arrays.end(), offset,
      [](uintptr_t value, const SharedArray& array) { return value < array.offset; });
  if (after == module.arrays.begin()) return nullptr;
  SharedArray& array = *(after - 1);
  return array.is_shared ? &array : nullptr;
}

}  // namespace

void adopt_thread(Worker& worker) {
  // Kernels touch their thread-local arrays for the first time inside a block; dl_iterate_phdr
  // knows this thread's copy only once it exists, which simt_flops, in the same library, ensures.
  simt_flops = 0;
  adopted = &worker;
  static_shared.clear();
  module_data.clear();
  dl_iterate_phdr(&adopt_module, nullptr);
  dynamic_region = {};
  dynamic_region.begin = reinterpret_cast<uintptr_t>(worker.shared);
  dynamic_region.end = dynamic_region.begin + kSharedCapacity;
  dynamic_region.shared = true;
  dynamic_region.name = "dynamic shared memory";
  dynamic_region.allocate();
}

void forget_touched_shared() {
  for (auto& module : static_shared)
    for (SharedArray& array : module->arrays) {
      if (array.touched)
        std::memset(reinterpret_cast<void*>(module->region.begin + array.offset), 0xff, array.size);
      array.touched = false;
    }
}

Region* find_region(uintptr_t address, unsigned bytes, unsigned kind, uint32_t place,
                    const std::string** name) {
  const std::string size = std::to_string(bytes) + "-byte " + (kind & kWrite ? "write" : "read");
  if (dynamic_region.contains(address)) {
    const uintptr_t limit = dynamic_region.begin + this_worker()->shared_bytes;
    if (address + bytes > limit)
      outside(size + " ends " + std::to_string(address + bytes - limit) + " bytes past the " +
                  std::to_string(this_worker()->shared_bytes) + " bytes of dynamic shared memory",
              place);
    *name = &dynamic_region.name;
    return &dynamic_region;
  }
  if (Region* region = find_global(address)) {
    if (address + bytes > region->end)
      outside(size + " runs over the end of " + region->name + " (" +
                  std::to_string(region->end - region->begin) + " bytes)",
              place);
    *name = &region->name;
    return region;
  }
  for (auto& module : static_shared) {
    if (!module->region.contains(address)) continue;
    SharedArray* array = find_static(*module, address);
    if (!array) return nullptr;
    if (address - module->region.begin + bytes > array->offset + array->size)
      outside(size + " past the end of " + array->name, place);
    array->touched = true;
    *name = &array->name;
    return &module->region;
  }
  for (const auto& [begin, end] : module_data)
    if (address >= begin && address < end) return nullptr;
  constexpr uintptr_t kNear = 1 << 20;
  std::string where;
  for (const auto& region : global) {
    const std::string what =
        region->name + " (" + std::to_string(region->end - region->begin) + " bytes)";
    if (address >= region->end && address - region->end < kNear)
      where = ", " + std::to_string(address - region->end) + " bytes after the end of " + what;
    if (where.empty() && address < region->begin && region->begin - address < kNear)
      where = ", " + std::to_string(region->begin - address) + " bytes before the start of " + what;
  }
  outside(size + " outside every array" + where, place);
}

static void set_initialised(Region& region, uintptr_t address, size_t bytes) {
  region.for_each_cell(address, bytes, [](Cell& cell) { cell.initialised = true; });
}

// An array that is both read and written may be given twice; the wider right stays.
static void watch_memory(const void* data, size_t bytes, Contents contents, const char* name) {
  if (!bytes) return;
  const auto begin = reinterpret_cast<uintptr_t>(data);
  last_found = nullptr;
  for (auto& region : global)
    if (region->begin == begin && region->end == begin + bytes) {
      region->holders++;
      if (region->contents != contents) region->contents = Contents::in_out;
      if (contents != Contents::output) set_initialised(*region, begin, bytes);
      return;
    }
  auto region = std::make_unique<Region>();
  region->begin = begin, region->end = begin + bytes;
  region->contents = contents, region->name = name;
  region->allocate();
  if (contents != Contents::output) set_initialised(*region, begin, bytes);
  const auto after =
      std::upper_bound(global.begin(), global.end(), region,
                       [](const auto& a, const auto& b) { return a->begin < b->begin; });
  global.insert(after, std::move(region));
}

static void unwatch_memory(const void* data) {
  const auto begin = reinterpret_cast<uintptr_t>(data);
  last_found = nullptr;
  const auto found = std::find_if(global.begin(), global.end(),
                                  [&](const auto& region) { return region->begin == begin; });
  if (found == global.end() || --(*found)->holders) return;
  Region& region = **found;
  size_t unwritten = 0;
  const bool finished = !adopted || adopted->error.empty();  // the launch before
  if (finished && region.contents == Contents::output && region.name != "workspace")
    region.for_each_cell(begin, region.end - region.begin,
                         [&](Cell& cell) { unwritten += !cell.initialised; });
  if (unwritten)
    add_finding("unwritten", region.name,
                std::to_string(unwritten) + " words or bytes of the output " + region.name +
                    " were never written");
  global.erase(found);
}

static void host_wrote(const void* data, size_t bytes) {
  const auto begin = reinterpret_cast<uintptr_t>(data);
  if (Region* region = find_global(begin)) set_initialised(*region, begin, bytes);
}

static const bool regions_installed = [] {
  checker.register_memory = watch_memory;
  checker.unregister_memory = unwatch_memory;
  checker.host_wrote = host_wrote;
  return true;
}();

}  // namespace simt
