// conv, depthwise: one input channel a group, so registers hold positions of one output channel
// instead of several channels. See cpu/direct.h for the method; no workspace.
#include "cpu/direct.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::ConvArgs;

template <class T>
void conv_fprop_depthwise(const ConvArgs<T>& args) {
  direct_fprop<T, 1, 6>(args);
}
template <class T>
void conv_dgrad_depthwise(const ConvArgs<T>& args) {
  direct_dgrad<T, 1, 6>(args);
}
template <class T>
void conv_wgrad_depthwise(const ConvArgs<T>& args) {
  direct_wgrad<T, 1, 3>(args);
}

LAMINA_INSTANTIATE(conv_fprop_depthwise, ConvArgs)
LAMINA_INSTANTIATE(conv_dgrad_depthwise, ConvArgs)
LAMINA_INSTANTIATE(conv_wgrad_depthwise, ConvArgs)

LAMINA_CPU_NAMESPACE_END
