// Shared by the checker's files: places in the code, findings, the regions of memory and requests.
#pragma once

#include <array>
#include <string>
#include <unordered_map>
#include <vector>

#include "simt/worker.h"

namespace simt {

// ---- places: the instructions that access memory, numbered from 1
uint32_t place_of(uintptr_t pc);
std::string place_text(uint32_t place);
uintptr_t place_pc(uint32_t place);

void add_finding(const char* kind, const std::string& key, const std::string& text);
// Reports, then ends the launch.
[[noreturn]] void fatal_finding(const char* kind, uint32_t place, const std::string& text);

// ---- shadow memory: the last write and the concurrent reads of one word, or of one byte of a word
// that is accessed by bytes
struct Cell {
  uint32_t write_block, write_epoch, write_clock, write_place;
  uint32_t read_block, read_epoch, read_clock, read_place;
  uint32_t read_lanes, read_vector;  // of one warp; index of a ReadVector if several warps read
  uint16_t write_thread, read_warp;
  bool write_atomic, initialised, pending;
};

struct Region {
  uintptr_t begin = 0, end = 0;
  bool shared = false;
  Contents contents = Contents::in_out;
  int holders = 1;  // calls that have registered it and not yet released it
  std::string name;
  std::vector<Cell> words;
  std::unordered_map<size_t, std::array<Cell, 4>> bytes;
  std::vector<bool> split;

  void allocate() {
    const size_t count = (end - begin + 3) / 4;
    words.assign(count, Cell{});
    split.assign(count, false);
    bytes.clear();
  }
  bool contains(uintptr_t address) const { return address - begin < end - begin; }

  // body(cell) for whole words where the access covers them, for bytes elsewhere.
  template <class Body>
  void for_each_cell(uintptr_t address, size_t size, Body body) {
    for (const uintptr_t last = address + size; address < last;) {
      const size_t word = (address - begin) / 4;
      const bool whole = (address - begin) % 4 == 0 && last - address >= 4;
      if (whole && !split[word]) {
        body(words[word]);
        address += 4;
        continue;
      }
      if (!split[word]) {
        split[word] = true;
        bytes[word].fill(words[word]);
      }
      std::array<Cell, 4>& cells = bytes[word];
      const uintptr_t stop = std::min(last, begin + 4 * word + 4);
      for (; address < stop; ++address) body(cells[(address - begin) % 4]);
    }
  }
};

// ---- races: what happened before what
void begin_block_order();
void begin_launch_order();
void check_access(Region& region, uintptr_t address, unsigned bytes, unsigned kind, uint32_t place,
                  const std::string& name);
void order_barrier();
void order_syncwarp(Worker& worker, int warp, uint32_t lanes);
void order_mbarrier_arrive(Worker& worker, const void* barrier);
void order_mbarrier_pass(Worker& worker, const void* barrier);

// ---- regions
// The region of an access and the name to report; null for what is not watched (own stack,
// constants). Ends the launch for an address outside everything.
Region* find_region(uintptr_t address, unsigned bytes, unsigned kind, uint32_t place,
                    const std::string** name);
void forget_touched_shared();
void adopt_thread(Worker& worker);  // shared memory belongs to the OS thread that runs blocks

// ---- requests
void record_request(uintptr_t address, unsigned bytes, unsigned kind, uint32_t place, bool shared);
void end_requests(Worker& worker, int warp);  // the lanes have met: match what they did so far
void clear_requests();

}  // namespace simt
