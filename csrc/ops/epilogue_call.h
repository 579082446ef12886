// Runs a kernel whose arguments have an epilogue: the kernel applies it while it stores, where it
// can, else the activation kernel of the same backend goes over the result once more.
#pragma once

#include "ops/epilogue.h"
#include "ops/registry.h"

LAMINA_ARGS(ActivationArgs)

namespace lamina::ops {

// Whether the kernel applies an epilogue of this kind itself.
bool applies_epilogue(const Kernel& kernel, Activation kind);

// result: what `args` says the kernel writes, `size` elements in a row.
template <class T, template <class> class Args>
void call_with_epilogue(const Kernel& kernel, Args<T> args, T* result, int64_t size) {
  const WatchedCall call;
  const Epilogue<T> epilogue = args.epilogue;
  if (epilogue.empty() || applies_epilogue(kernel, epilogue.kind))
    return call_function(kernel, args);
  args.epilogue = {};
  call_function(kernel, args);
  ActivationArgs<T> pass;
  pass.kind = epilogue.kind, pass.a = epilogue.a, pass.b = epilogue.b;
  pass.size = size, pass.x = pass.result = result, pass.residual = epilogue.residual;
  call_function(find_kernel("activation", "fprop"), pass);
}

}  // namespace lamina::ops
