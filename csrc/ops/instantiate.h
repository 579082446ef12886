// The two element types every kernel is compiled for.
#pragma once

#define LAMINA_INSTANTIATE(kernel, Args)                \
  template void kernel<float>(const ops::Args<float>&); \
  template void kernel<double>(const ops::Args<double>&);
