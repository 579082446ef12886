"""Named convolution layers of known networks, as data for benchmarks and tests."""

from __future__ import annotations

from typing import NamedTuple


class ConvLayer(NamedTuple):
    """Square 2-D convolution: c channels of size x size to k channels."""

    name: str
    c: int
    size: int
    k: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1

    def x_shape(self, batch: int) -> tuple[int, ...]:
        return (batch, self.c, self.size, self.size)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.k, self.c // self.groups, self.kernel, self.kernel)


# Krizhevsky et al. 2012; Simonyan & Zisserman 2015; Szegedy et al. 2015; He et al. 2016;
# Howard et al. 2017.
CONV = (
    ConvLayer("alexnet.conv1", 3, 224, 64, 11, 4, 2),
    ConvLayer("alexnet.conv2", 64, 27, 192, 5, 1, 2),
    ConvLayer("alexnet.conv3", 192, 13, 384, 3, 1, 1),
    ConvLayer("vgg16.conv1_1", 3, 224, 64, 3, 1, 1),
    ConvLayer("vgg16.conv3_1", 128, 56, 256, 3, 1, 1),
    ConvLayer("vgg16.conv5_1", 512, 14, 512, 3, 1, 1),
    ConvLayer("googlenet.3a_3x3", 96, 28, 128, 3, 1, 1),
    ConvLayer("googlenet.3a_5x5", 16, 28, 32, 5, 1, 2),
    ConvLayer("resnet50.conv1", 3, 224, 64, 7, 2, 3),
    ConvLayer("resnet50.layer1_3x3", 64, 56, 64, 3, 1, 1),
    ConvLayer("resnet50.layer2_1x1", 512, 28, 128, 1),
    ConvLayer("resnet50.layer3_3x3", 256, 14, 256, 3, 1, 1),
    ConvLayer("resnet50.layer4_3x3", 512, 7, 512, 3, 1, 1),
    ConvLayer("mobilenet.dw_28", 256, 28, 256, 3, 1, 1, 256),
    ConvLayer("mobilenet.pw_28", 256, 28, 256, 1),
)
