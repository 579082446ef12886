"""Named layers of known networks, as data for benchmarks and tests.

Krizhevsky et al. 2012 (AlexNet); Simonyan & Zisserman 2015 (VGG); Szegedy et al. 2015 (GoogLeNet)
and 2016 (Inception v3); He et al. 2016 (ResNet); Howard et al. 2017 (MobileNet); Radford et al.
2016 (DCGAN); Ronneberger et al. 2015 (U-Net); Long et al. 2015 (FCN); Wu & He 2018 (group
normalisation); Vaswani et al. 2017 (Transformer); Huang et al. 2017 (DenseNet); Zhao et al. 2017
(PSPNet); Lin et al. 2017 (FPN); Tan & Le 2019 (EfficientNet); Zhang et al. 2018 (ShuffleNet);
Badrinarayanan et al. 2017 (SegNet); Girshick 2015 (Fast R-CNN); He et al. 2017 (Mask R-CNN).

A new layer is a line of a tuple below. A new family is a tuple, its entry in FAMILIES, and a
definition (definitions.py) for each operation that lacks one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

Sizes = int | tuple[int, ...]


class ConvLayer(NamedTuple):
    """A convolution: c channels to k, on an image (or a line, or a volume) of this size.

    One number stands for each of two axes, a tuple for as many axes as it has: `size` says how
    many there are. A transposed layer is the input gradient of its `underlying` convolution.
    """

    name: str
    c: int
    size: Sizes
    k: int
    kernel: Sizes
    stride: Sizes = 1
    padding: Sizes = 0
    groups: int = 1
    transposed: bool = False
    dilation: Sizes = 1
    output_padding: int = 0

    @property
    def axes(self) -> int:
        return 2 if isinstance(self.size, int) else len(self.size)

    def each(self, value: Sizes) -> tuple[int, ...]:
        """One number an axis."""
        return (value,) * self.axes if isinstance(value, int) else value

    def x_shape(self, batch: int) -> tuple[int, ...]:
        return (batch, self.c, *self.each(self.size))

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """As the function takes it: a transposed layer's starts with the input's channels."""
        k, c = (self.c, self.k) if self.transposed else (self.k, self.c)
        return (k, c // self.groups, *self.each(self.kernel))

    def y_shape(self, batch: int) -> tuple[int, ...]:
        if self.transposed:
            return self.underlying.x_shape(batch)
        out = (
            (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, pad, dilation in self._by_axis()
        )
        return (batch, self.k, *out)

    @property
    def underlying(self) -> ConvLayer:
        """From this transposed layer's output to its input."""
        size = tuple(
            (size - 1) * stride - 2 * pad + dilation * (kernel - 1) + 1 + self.output_padding
            for size, kernel, stride, pad, dilation in self._by_axis()
        )
        return self._replace(c=self.k, size=size, k=self.c, transposed=False, output_padding=0)

    def _by_axis(self) -> Iterator[tuple[int, ...]]:
        several = self.size, self.kernel, self.stride, self.padding, self.dilation
        return zip(*map(self.each, several), strict=True)


class PlainLayer(NamedTuple):
    """A layer of another kind: a definition (bench/definitions.py) on inputs of these shapes.

    In `shapes`, -1 stands for the batch. `flops` per element of the batch, where they are not a
    multiple of the input's size.
    """

    name: str
    definition: str
    shapes: tuple[tuple[int, ...], ...]
    flops: float = 0.0

    def input_shapes(self, batch: int) -> list[tuple[int, ...]]:
        return [tuple(batch if size == -1 else size for size in shape) for shape in self.shapes]


CONV = (
    ConvLayer("alexnet.conv1", 3, 224, 64, 11, 4, 2),
    ConvLayer("alexnet.conv2", 64, 27, 192, 5, 1, 2),
    ConvLayer("alexnet.conv3", 192, 13, 384, 3, 1, 1),
    ConvLayer("vgg16.conv1_1", 3, 224, 64, 3, 1, 1),
    ConvLayer("vgg16.conv3_1", 128, 56, 256, 3, 1, 1),
    ConvLayer("vgg16.conv5_1", 512, 14, 512, 3, 1, 1),
    ConvLayer("googlenet.3a_3x3", 96, 28, 128, 3, 1, 1),
    ConvLayer("googlenet.3a_5x5", 16, 28, 32, 5, 1, 2),
    ConvLayer("inception.stem_3x3s2", 3, 299, 32, 3, 2),
    ConvLayer("inception.mixed_5x5", 48, 35, 64, 5, 1, 2),
    ConvLayer("resnet50.conv1", 3, 224, 64, 7, 2, 3),
    ConvLayer("resnet50.layer1_3x3", 64, 56, 64, 3, 1, 1),
    ConvLayer("resnet50.layer2_3x3s2", 128, 56, 128, 3, 2, 1),
    ConvLayer("resnet50.layer2_1x1", 512, 28, 128, 1),
    ConvLayer("resnet50.layer3_3x3", 256, 14, 256, 3, 1, 1),
    ConvLayer("resnet50.layer4_3x3", 512, 7, 512, 3, 1, 1),
    ConvLayer("mobilenet.dw_112", 32, 112, 32, 3, 1, 1, 32),
    ConvLayer("mobilenet.dw_28", 256, 28, 256, 3, 1, 1, 256),
    ConvLayer("mobilenet.pw_28", 256, 28, 256, 1),
    ConvLayer("dcgan.d2_4x4s2", 64, 32, 128, 4, 2, 1),
    ConvLayer("unet.down2_3x3", 64, 284, 128, 3),
    ConvLayer("large.31x31", 8, 96, 8, 31, 1, 15),
)
CONV_TRANSPOSE = (
    ConvLayer("dcgan.g1_project", 100, 1, 1024, 4, transposed=True),
    ConvLayer("dcgan.g2", 1024, 4, 512, 4, 2, 1, transposed=True),
    ConvLayer("dcgan.g4", 256, 16, 128, 4, 2, 1, transposed=True),
    ConvLayer("dcgan.g5_image", 128, 32, 3, 4, 2, 1, transposed=True),
    ConvLayer("unet.up1_2x2", 1024, 28, 512, 2, 2, transposed=True),
    ConvLayer("unet.up4_2x2", 128, 196, 64, 2, 2, transposed=True),
    ConvLayer("fcn8s.upscore", 21, 28, 21, 16, 8, 4, transposed=True),
)

# `lamina compare`: pairs of a layer and a batch. Besides the networks above: Xie et al. 2017
# (ResNeXt), Yu & Koltun 2016 (dilated), Chen et al. 2017 (DeepLab's ASPP), Liu et al. 2022
# (ConvNeXt), Ding et al. 2022 (RepLKNet's 31x31).
_AT_BOTH = (
    # AlexNet, VGG-16
    ConvLayer("alex1", 3, 224, 64, 11, 4, 2),
    ConvLayer("alex2", 64, 27, 192, 5, 1, 2),
    ConvLayer("alex3", 192, 13, 384, 3, 1, 1),
    ConvLayer("alex4", 384, 13, 256, 3, 1, 1),
    ConvLayer("alex5", 256, 13, 256, 3, 1, 1),
    ConvLayer("vgg1_1", 3, 224, 64, 3, 1, 1),
    ConvLayer("vgg1_2", 64, 224, 64, 3, 1, 1),
    ConvLayer("vgg2_1", 64, 112, 128, 3, 1, 1),
    ConvLayer("vgg2_2", 128, 112, 128, 3, 1, 1),
    ConvLayer("vgg3_1", 128, 56, 256, 3, 1, 1),
    ConvLayer("vgg3_2", 256, 56, 256, 3, 1, 1),
    ConvLayer("vgg4_1", 256, 28, 512, 3, 1, 1),
    ConvLayer("vgg4_2", 512, 28, 512, 3, 1, 1),
    ConvLayer("vgg5", 512, 14, 512, 3, 1, 1),
    # ResNet-50
    ConvLayer("rn_conv1", 3, 224, 64, 7, 2, 3),
    ConvLayer("rn_l1_3x3", 64, 56, 64, 3, 1, 1),
    ConvLayer("rn_l2_3x3", 128, 28, 128, 3, 1, 1),
    ConvLayer("rn_l3_3x3", 256, 14, 256, 3, 1, 1),
    ConvLayer("rn_l4_3x3", 512, 7, 512, 3, 1, 1),
    ConvLayer("rn_3x3s2_l2", 64, 56, 128, 3, 2, 1),
    ConvLayer("rn_3x3s2_l4", 256, 14, 512, 3, 2, 1),
    ConvLayer("rn_1x1s2", 256, 56, 512, 1, 2),
    ConvLayer("rn_1x1_l1r", 256, 56, 64, 1),
    ConvLayer("rn_1x1_l1e", 64, 56, 256, 1),
    ConvLayer("rn_1x1_l2", 512, 28, 128, 1),
    ConvLayer("rn_1x1_l3e", 256, 14, 1024, 1),
    ConvLayer("rn_1x1_l4e", 512, 7, 2048, 1),
    # GoogLeNet, MobileNet
    ConvLayer("goog_5x5", 32, 28, 96, 5, 1, 2),
    ConvLayer("goog_5x5s", 16, 28, 32, 5, 1, 2),
    ConvLayer("mb_dw_112", 32, 112, 32, 3, 1, 1, 32),
    ConvLayer("mb_dw_112s2", 64, 112, 64, 3, 2, 1, 64),
    ConvLayer("mb_dw_28", 256, 28, 256, 3, 1, 1, 256),
    ConvLayer("mb_dw_14", 512, 14, 512, 3, 1, 1, 512),
    ConvLayer("mb_dw_7", 1024, 7, 1024, 3, 1, 1, 1024),
    # dilated and transposed: DeepLab, DCGAN
    ConvLayer("dil2", 256, 28, 256, 3, 1, 2, dilation=2),
    ConvLayer("dil4", 512, 28, 512, 3, 1, 4, dilation=4),
    ConvLayer("aspp12", 512, 33, 256, 3, 1, 12, dilation=12),
    ConvLayer("dcgan_t2", 512, 8, 256, 4, 2, 1, transposed=True),
    ConvLayer("dcgan_t4", 128, 32, 64, 4, 2, 1, transposed=True),
    ConvLayer("dcgan_out", 64, 32, 3, 4, 2, 1, transposed=True),
    # ResNeXt
    ConvLayer("resnext_56", 128, 56, 128, 3, 1, 1, 32),
    ConvLayer("resnext_14", 512, 14, 512, 3, 1, 1, 32),
)
_AT_8 = (
    ConvLayer("convnext_dw7", 96, 56, 96, 7, 1, 3, 96),
    ConvLayer("incep_1x7", 192, 17, 192, (1, 7), 1, (0, 3)),
)
_AT_1 = (
    ConvLayer("unet_3x3", 64, 256, 64, 3, 1, 1),
    ConvLayer("tiny", 8, 8, 8, 3, 1, 1),
    ConvLayer("lk31_dw", 128, 56, 128, 31, 1, 15, 128),
)
SUITE = (
    *((layer, batch) for batch in (1, 8) for layer in _AT_BOTH),
    *((layer, 8) for layer in _AT_8),
    *((layer, 1) for layer in _AT_1),
)

# What no rule or kernel was fitted to: odd sizes and channels, one axis and three. Dieleman et al.
# 2016 (WaveNet), Dai et al. 2017 (M5), Bai et al. 2018 (TCN), Tran et al. 2015 and 2018 (C3D, R3D),
# Redmon & Farhadi 2018 (YOLOv3), Iandola et al. 2016 (SqueezeNet), Dosovitskiy et al. 2021 (ViT),
# Amodei et al. 2016 (Deep Speech 2), Dong et al. 2016 (FSRCNN), Chollet 2017 (Xception).
HELD_OUT = (
    (ConvLayer("wavenet_d64", 64, (4000,), 64, 2, dilation=64), 1),
    (ConvLayer("m5_80s4", 1, (8000,), 128, 80, 4, 38), 8),
    (ConvLayer("tcn_d8", 100, (784,), 100, 7, 1, 24, dilation=8), 4),
    (ConvLayer("c3d_1", 3, (16, 56, 56), 64, 3, 1, 1), 1),
    (ConvLayer("r3d_3", 128, (4, 28, 28), 128, 3, 1, 1), 2),
    (ConvLayer("odd_37", 37, (45, 61), 53, 3, 1, 1), 3),
    (ConvLayer("yolo_3x3s2", 64, 104, 128, 3, 2, 1), 1),
    (ConvLayer("squeeze_expand", 16, 55, 64, 3, 1, 1), 8),
    (ConvLayer("dense_growth", 128, 28, 32, 3, 1, 1), 8),
    (ConvLayer("unet_valid", 64, 140, 64, 3), 2),
    (ConvLayer("effnet_dw5", 240, 28, 240, 5, 1, 2, 240), 8),
    (ConvLayer("effnet_dw5s2", 144, 56, 144, 5, 2, 2, 144), 1),
    (ConvLayer("effnet_1x1", 40, 28, 240, 1), 8),
    (ConvLayer("xception_dw", 728, 19, 728, 3, 1, 1, 728), 4),
    (ConvLayer("shuffle_1x1g3", 240, 28, 240, 1, groups=3), 8),
    (ConvLayer("vit_patch", 3, 224, 768, 16, 16), 1),
    (ConvLayer("convnext_stem", 3, 224, 96, 4, 4), 4),
    (ConvLayer("speech_41x11", 1, (161, 200), 32, (41, 11), 2, (20, 5)), 4),
    (ConvLayer("incep_7x1", 160, 17, 192, (7, 1), 1, (3, 0)), 4),
    (ConvLayer("fsrcnn_9x9s3", 56, 32, 1, 9, 3, 4, transposed=True, output_padding=2), 1),
)
# Along one axis: van den Oord et al. 2016 (WaveNet), Luo & Mesgarani 2019 (Conv-TasNet), Baevski et
# al. 2020 (wav2vec 2.0), Kong et al. 2020 (HiFi-GAN), Gulati et al. 2020 (Conformer), Défossez et
# al. 2019 and 2022 (Demucs, EnCodec), Radford et al. 2022 (Whisper), Qi et al. 2017 (PointNet), Kim
# 2014 (sentences), Fawaz et al. 2020 (InceptionTime), Gu & Dao 2023 (Mamba).
LINES = (
    (ConvLayer("wavenet_gate_d16", 64, (4000,), 128, 2, dilation=16), 1),
    (ConvLayer("tasnet_encoder", 1, (32000,), 512, 16, 8), 1),
    (ConvLayer("tasnet_dw_d8", 512, (3999,), 512, 3, 1, 8, 512, dilation=8), 1),
    (ConvLayer("tasnet_1x1", 128, (3999,), 512, 1), 1),
    (ConvLayer("tasnet_decoder", 512, (3999,), 1, 16, 8, transposed=True), 1),
    (ConvLayer("wav2vec_0", 1, (16000,), 512, 10, 5), 1),
    (ConvLayer("wav2vec_2", 512, (799,), 512, 3, 2), 1),
    (ConvLayer("wav2vec_6", 512, (99,), 512, 2, 2), 8),
    (ConvLayer("wav2vec_position", 768, (49,), 768, 128, 1, 64, 16), 1),
    (ConvLayer("hifigan_up1", 512, (32,), 256, 16, 8, 4, transposed=True), 1),
    (ConvLayer("hifigan_up2", 256, (256,), 128, 16, 8, 4, transposed=True), 1),
    (ConvLayer("hifigan_up4", 64, (4096,), 32, 4, 2, 1, transposed=True), 1),
    (ConvLayer("hifigan_res_k11d5", 128, (1024,), 128, 11, 1, 25, dilation=5), 1),
    (ConvLayer("hifigan_res_k3d3", 32, (8192,), 32, 3, 1, 3, dilation=3), 1),
    (ConvLayer("hifigan_post", 32, (8192,), 1, 7, 1, 3), 1),
    (ConvLayer("conformer_dw31", 256, (400,), 256, 31, 1, 15, 256), 8),
    (ConvLayer("conformer_1x1", 256, (400,), 512, 1), 8),
    (ConvLayer("demucs_in", 2, (44100,), 64, 8, 4), 1),
    (ConvLayer("demucs_up", 128, (2756,), 64, 8, 4, transposed=True), 1),
    (ConvLayer("encodec_down3", 128, (1500,), 256, 10, 5, 3), 1),
    (ConvLayer("encodec_up1", 512, (75,), 256, 16, 8, 4, transposed=True), 8),
    (ConvLayer("whisper_mel", 80, (3000,), 512, 3, 1, 1), 1),
    (ConvLayer("pointnet_1024", 128, (1024,), 1024, 1), 8),
    (ConvLayer("sentence_k5", 300, (56,), 100, 5), 8),
    (ConvLayer("inceptiontime_k39", 32, (512,), 32, 39, 1, 19), 8),
    (ConvLayer("mamba_dw4", 1536, (512,), 1536, 4, 1, 3, 1536), 1),
)
# Of volumes: Tran et al. 2015 and 2018 (C3D, R3D, R(2+1)D), Carreira & Zisserman 2017 (I3D),
# Feichtenhofer et al. 2019 and 2020 (SlowFast, X3D), Çiçek et al. 2016 (3D U-Net), Milletari et al.
# 2016 (V-Net), Wu et al. 2016 (3D-GAN), Maturana & Scherer 2015 (VoxNet), Arnab et al. 2021
# (ViViT), Roy et al. 2023 (MedNeXt).
VOLUMES = (
    (ConvLayer("c3d_2", 64, (8, 28, 28), 128, 3, 1, 1), 1),
    (ConvLayer("c3d_5", 512, (2, 7, 7), 512, 3, 1, 1), 1),
    (ConvLayer("r3d_stem", 3, (8, 112, 112), 64, (3, 7, 7), (1, 2, 2), (1, 3, 3)), 1),
    (ConvLayer("r3d_down", 64, (8, 28, 28), 128, 3, 2, 1), 1),
    (ConvLayer("r21d_stem", 3, (8, 112, 112), 45, (1, 7, 7), (1, 2, 2), (0, 3, 3)), 1),
    (ConvLayer("r21d_space", 64, (8, 28, 28), 144, (1, 3, 3), 1, (0, 1, 1)), 1),
    (ConvLayer("r21d_time", 144, (8, 28, 28), 64, (3, 1, 1), 1, (1, 0, 0)), 1),
    (ConvLayer("i3d_stem", 3, (16, 112, 112), 64, 7, 2, 3), 1),
    (ConvLayer("i3d_1x1", 480, (4, 14, 14), 192, 1), 8),
    (ConvLayer("i3d_3x3", 96, (4, 14, 14), 208, 3, 1, 1), 1),
    (ConvLayer("fast_stem", 3, (16, 112, 112), 8, (5, 7, 7), (1, 2, 2), (2, 3, 3)), 1),
    (ConvLayer("fast_time", 32, (16, 56, 56), 8, (3, 1, 1), 1, (1, 0, 0)), 1),
    (ConvLayer("fast_space", 8, (16, 56, 56), 8, (1, 3, 3), 1, (0, 1, 1)), 1),
    (ConvLayer("fast_to_slow", 8, (32, 56, 56), 16, (5, 1, 1), (8, 1, 1), (2, 0, 0)), 1),
    (ConvLayer("x3d_stem", 3, (13, 112, 112), 24, (1, 3, 3), (1, 2, 2), (0, 1, 1)), 1),
    (ConvLayer("x3d_stem_dw", 24, (13, 56, 56), 24, (5, 1, 1), 1, (2, 0, 0), 24), 1),
    (ConvLayer("x3d_dw", 108, (13, 28, 28), 108, 3, 1, 1, 108), 1),
    (ConvLayer("x3d_dw_s2", 54, (13, 56, 56), 54, 3, (1, 2, 2), 1, 54), 1),
    (ConvLayer("x3d_dw_7", 432, (13, 7, 7), 432, 3, 1, 1, 432), 8),
    (ConvLayer("x3d_1x1", 24, (13, 56, 56), 54, 1), 1),
    (ConvLayer("unet3d_in", 1, (32, 64, 64), 32, 3, 1, 1), 1),
    (ConvLayer("unet3d_2", 32, (16, 32, 32), 64, 3, 1, 1), 1),
    (ConvLayer("unet3d_up", 128, (8, 16, 16), 128, 2, 2, transposed=True), 1),
    (ConvLayer("unet3d_out", 64, (32, 64, 64), 3, 1), 1),
    (ConvLayer("vnet_5", 16, (16, 32, 32), 16, 5, 1, 2), 1),
    (ConvLayer("vnet_down", 16, (32, 64, 64), 32, 2, 2), 1),
    (ConvLayer("vnet_up", 64, (16, 32, 32), 16, 2, 2, transposed=True), 1),
    (ConvLayer("gan3d_2", 512, (4, 4, 4), 256, 4, 2, 1, transposed=True), 8),
    (ConvLayer("gan3d_up", 32, (8, 14, 14), 32, 4, 2, 1, transposed=True), 2),
    (ConvLayer("gan3d_out", 64, (16, 16, 16), 1, 4, 2, 1, transposed=True), 1),
    (ConvLayer("voxnet_1", 1, (32, 32, 32), 32, 5, 2), 8),
    (ConvLayer("vivit_tubelet", 3, (8, 112, 112), 768, (2, 16, 16), (2, 16, 16)), 1),
    (ConvLayer("mednext_dw5", 32, (24, 32, 32), 32, 5, 1, 2, 32), 1),
)
# Where the call costs more than its arithmetic.
TINY = (
    (ConvLayer("tiny_4x4", 8, 4, 8, 3, 1, 1), 1),
    (ConvLayer("tiny_8x8", 8, 8, 8, 3, 1, 1), 1),
    (ConvLayer("tiny_1ch", 1, 8, 1, 3, 1, 1), 1),
    (ConvLayer("lenet_conv1", 1, 28, 6, 5, 1, 2), 1),
    (ConvLayer("lenet_conv2", 6, 14, 16, 5), 1),
)

_BATCH = -1
GEMM = (
    PlainLayer("alexnet.fc6", "gemm", ((_BATCH, 9216), (4096, 9216)), 2 * 9216 * 4096),
    PlainLayer("resnet50.fc", "gemm", ((_BATCH, 2048), (1000, 2048)), 2 * 2048 * 1000),
    PlainLayer("transformer.ffn", "gemm", ((512, 512), (2048, 512)), 2 * 512 * 512 * 2048),
    PlainLayer("square.1024", "gemm", ((1024, 1024), (1024, 1024)), 2 * 1024**3),
)
POOL = (
    PlainLayer("vgg16.pool1", "max_pool", ((_BATCH, 64, 224, 224),)),
    PlainLayer("vgg16.pool3", "max_pool", ((_BATCH, 256, 56, 56),)),
    PlainLayer("resnet50.maxpool", "max_pool_3x3s2", ((_BATCH, 64, 112, 112),)),
    PlainLayer("googlenet.3a_pool", "max_pool_3x3", ((_BATCH, 192, 28, 28),)),
    PlainLayer("inception.mixed_avg", "avg_pool_3x3", ((_BATCH, 288, 35, 35),)),
    PlainLayer("densenet.transition1", "avg_pool", ((_BATCH, 128, 56, 56),)),
    PlainLayer("alexnet.adaptive", "adaptive_avg_pool", ((_BATCH, 256, 13, 13),)),
    PlainLayer("pspnet.adaptive", "adaptive_avg_pool", ((_BATCH, 2048, 60, 60),)),
    PlainLayer("segnet.unpool1", "max_unpool", ((_BATCH, 64, 112, 112),)),
    PlainLayer("resnet50.global", "global_avg_pool", ((_BATCH, 2048, 7, 7),)),
)
ACTIVATION = (
    PlainLayer("vgg16.relu1", "relu", ((_BATCH, 64, 224, 224),)),
    PlainLayer("resnet50.relu4", "relu", ((_BATCH, 2048, 7, 7),)),
    PlainLayer("mobilenet.relu6", "relu6", ((_BATCH, 64, 112, 112),)),
    PlainLayer("dcgan.leaky_relu", "leaky_relu", ((_BATCH, 64, 32, 32),)),
    PlainLayer("dcgan.tanh", "tanh", ((_BATCH, 3, 64, 64),)),
    PlainLayer("efficientnet.silu", "silu", ((_BATCH, 96, 112, 112),)),
    PlainLayer("lenet.sigmoid", "sigmoid", ((_BATCH, 6, 28, 28),)),
    PlainLayer("transformer.gelu", "gelu", ((512, 2048),)),
    PlainLayer("resnet50.prelu1", "prelu", ((_BATCH, 256, 56, 56), (256,))),
)
SOFTMAX = (
    PlainLayer("imagenet.softmax", "softmax", ((128, 1000),)),
    PlainLayer("imagenet.cross_entropy", "cross_entropy", ((128, 1000),)),
    PlainLayer("transformer.attention", "softmax", ((4096, 512),)),
    PlainLayer("transformer.log_softmax", "log_softmax", ((128, 32000),)),
    PlainLayer("transformer.cross_entropy", "cross_entropy", ((128, 32000),)),
)
NORM = (
    PlainLayer("resnet50.bn1", "batch_norm", ((_BATCH, 64, 112, 112), (64,), (64,))),
    PlainLayer("resnet50.layer3_bn", "batch_norm", ((_BATCH, 1024, 14, 14), (1024,), (1024,))),
    PlainLayer("mobilenet.bn_112", "batch_norm", ((_BATCH, 32, 112, 112), (32,), (32,))),
    PlainLayer("dcgan.bn_32", "batch_norm", ((_BATCH, 128, 32, 32), (128,), (128,))),
    PlainLayer("resnet50.layer1_gn", "group_norm_32", ((_BATCH, 256, 56, 56), (256,), (256,))),
    PlainLayer("transformer.layer_norm", "layer_norm", ((512, 512), (512,), (512,))),
    PlainLayer("alexnet.norm1", "local_response_norm", ((_BATCH, 64, 55, 55),)),
)
RNN = (
    PlainLayer(
        "lstm.256",
        "lstm_cell",
        ((32, 256), (32, 256), (32, 256), (1024, 256), (1024, 256)),
        2 * 2 * 32 * 256 * 1024,
    ),
    PlainLayer(
        "gru.512",
        "gru_cell",
        ((32, 512), (32, 512), (1536, 512), (1536, 512)),
        2 * 2 * 32 * 512 * 1536,
    ),
)
RESIZE = (
    PlainLayer("unet.up1", "resample", ((_BATCH, 256, 28, 28),)),
    PlainLayer("unet.up3", "resample", ((_BATCH, 64, 112, 112),)),
    PlainLayer("fpn.nearest", "nearest", ((_BATCH, 256, 28, 28),)),
    PlainLayer("shufflenet.shuffle", "permute", ((_BATCH, 240, 28, 28),)),
)
UNFOLD = (
    PlainLayer("vgg16.conv3_1_columns", "im2col", ((_BATCH, 128, 56, 56),)),
    PlainLayer("vgg16.conv5_1_columns", "im2col", ((_BATCH, 512, 14, 14),)),
)
ROI = (
    PlainLayer("fast_rcnn.roi_pool", "roi_pool", ((_BATCH, 512, 38, 50),)),
    PlainLayer("mask_rcnn.roi_align", "roi_align", ((_BATCH, 256, 50, 68),)),
)
DROPOUT = (
    PlainLayer("alexnet.dropout6", "dropout", ((128, 9216),)),
    PlainLayer("transformer.dropout", "dropout", ((512, 512),)),
)
# A matrix of 1 K, 64 K, 1 M and 16 M elements, and images of as many.
REDUCTION = tuple(
    PlainLayer(
        f"{name}.{place}_{label}", f"{name}.{place}", (image if place == "channels" else matrix,)
    )
    for label, matrix, image in (
        ("1k", (32, 32), (2, 8, 8, 8)),
        ("64k", (256, 256), (4, 16, 32, 32)),
        ("1m", (1024, 1024), (16, 64, 32, 32)),
        ("16m", (4096, 4096), (16, 256, 64, 64)),
    )
    for name, places in (
        ("sum", ("all", "last", "first", "channels")),
        ("var", ("all", "last", "first", "channels")),
        ("norm", ("all", "last")),
        ("amax", ("all", "channels")),
        ("max", ("last", "first")),
        ("cumsum", ("last", "first")),
    )
    for place in places
)

# family -> its layers
FAMILIES: dict[str, tuple[ConvLayer, ...] | tuple[PlainLayer, ...]] = {
    "conv": CONV,
    "conv_transpose": CONV_TRANSPOSE,
    "gemm": GEMM,
    "pool": POOL,
    "activation": ACTIVATION,
    "softmax": SOFTMAX,
    "norm": NORM,
    "rnn": RNN,
    "resize": RESIZE,
    "unfold": UNFOLD,
    "roi": ROI,
    "dropout": DROPOUT,
    "reduction": REDUCTION,
}
