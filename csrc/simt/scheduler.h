// Running the blocks of a launch on this OS thread.
#pragma once

#include "simt/worker.h"

namespace simt {

Worker* make_worker();  // this thread's, made on first use, kept until it ends
void begin_launch(Worker& worker, const Launch& launch, const Options& options);
// Runs one block to its end, or until an error, which is then in worker.error.
void run_block(Worker& worker, uint3 index);

}  // namespace simt
