#include "ops/roi.h"

#include <array>

#include "bindings/common.h"

LAMINA_ARGS(RoiArgs)
LAMINA_ARGS(NmsArgs)

namespace lamina::bindings {
namespace {

using Optional = std::optional<Array>;

// bad [1]: the first box that is not finite or names no image, or -1.
void roi(const std::string& op, const std::string& pass, const std::array<int64_t, 4>& x_shape,
         const std::array<int64_t, 2>& bins, double scale, int64_t sampling_ratio, bool aligned,
         const Array& rois, const Array& source, const Array& result, const Optional& index,
         const Array& bad) {
  visit_dtype(result, [&]<class T>(T) {
    ops::RoiArgs<T> args;
    args.n = x_shape[0], args.c = x_shape[1], args.h = x_shape[2], args.w = x_shape[3];
    args.boxes = rois.size() / 5, args.bins_h = bins[0], args.bins_w = bins[1];
    args.scale = scale, args.sampling_ratio = sampling_ratio, args.aligned = aligned;
    args.rois = input<T>(rois, "rois", args.boxes * 5);
    const int64_t in = args.n * args.c * args.plane(), out = args.boxes * args.c * args.bins();
    const bool forward = pass == "fprop";
    (forward ? args.x : args.grad_y) = input<T>(source, "source", forward ? in : out);
    // in_out: a bad box leaves the results as they were.
    args.result = in_out<T>(result, "result", forward ? out : in);
    if (index)
      args.index = forward ? in_out<int64_t>(*index, "index", out)
                           : const_cast<int64_t*>(input<int64_t>(*index, "index", out));
    expect(op != "roi_pool" || args.index, "index", "is missing");
    args.bad = output<int64_t>(bad, "bad", 1);
    py::gil_scoped_release release;
    ops::run(op.c_str(), pass.c_str(), args);
  });
}

void nms(const Array& boxes, double threshold, const Array& keep) {
  visit_dtype(boxes, [&]<class T>(T) {
    const int64_t n = boxes.size() / 4;
    const ops::NmsArgs<T> args{n, threshold, input<T>(boxes, "boxes", n * 4),
                               output<uint8_t>(keep, "keep", n)};
    py::gil_scoped_release release;
    ops::run("nms", "fprop", args);
  });
}

}  // namespace

LAMINA_BINDINGS(roi) {
  module.def("roi", &roi, py::arg("op"), py::arg("pass_"), py::arg("x_shape"), py::arg("bins"),
             py::arg("scale"), py::arg("sampling_ratio"), py::arg("aligned"), py::arg("rois"),
             py::arg("source"), py::arg("result"), py::arg("index"), py::arg("bad"));
  module.def("nms", &nms, py::arg("boxes"), py::arg("threshold"), py::arg("keep"));
}

}  // namespace lamina::bindings
