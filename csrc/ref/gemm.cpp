// gemm, reference: the triple loop of ops/gemm.h, sums in double.
#include "ops/gemm.h"

#include "ops/instantiate.h"
#include "ref/activation.h"

namespace lamina::ref {

template <class T>
void gemm_fprop_direct(const ops::GemmArgs<T>& args) {
  for (int64_t index = 0; index < args.batch; ++index)
    for (int64_t i = 0; i < args.m; ++i)
      for (int64_t j = 0; j < args.n; ++j) {
        double sum = 0;
        for (int64_t p = 0; p < args.k; ++p) {
          const T a =
              args.a[index * args.stride_a + (args.trans_a ? p * args.lda + i : i * args.lda + p)];
          const T b =
              args.b[index * args.stride_b + (args.trans_b ? j * args.ldb + p : p * args.ldb + j)];
          sum += static_cast<double>(a) * b;
        }
        sum *= args.alpha;
        const int64_t at = index * args.stride_c + i * args.ldc + j;
        T& c = args.c[at];
        if (args.beta != T(0)) sum += static_cast<double>(args.beta) * c;
        if (args.bias_m) sum += args.bias_m[i];
        if (args.bias_n) sum += args.bias_n[j];
        c = finished(args.epilogue, sum, at);
      }
}

LAMINA_INSTANTIATE(gemm_fprop_direct, GemmArgs)

}  // namespace lamina::ref
