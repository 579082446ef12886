"""torchvision.ops' regions of interest, and the convolution's unrolled input."""

from .functional.fold import fold as col2im
from .functional.fold import unfold as im2col
from .functional.roi import nms, roi_align, roi_pool

__all__ = ["col2im", "im2col", "nms", "roi_align", "roi_pool"]
