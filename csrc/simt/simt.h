// The one header a kernel file includes for CUDA's vocabulary: one source, two compilers.
//
// nvcc sees CUDA itself and thin wrappers over the special instructions. g++ sees the same names on
// a runtime of our own (see README.md) that runs every thread of a block as a fiber on the CPU and,
// in the checking build, watches every access to memory.
#pragma once

#ifdef __CUDACC__
#include "simt/cuda_on_gpu.h"
#else
#include "simt/cuda_on_cpu.h"
#endif
#include "simt/async_copy.h"
#include "simt/tensor_core.h"
#ifndef __CUDACC__
#include "simt/runtime.h"
#endif

#ifdef SIMT_CHECK
// From here to the end of the file `float` counts its operations. Kernel sources stay unchanged;
// system headers must be included before this one.
#define float simt::counted_float
#endif
