"""Known networks as plain modules, with torchvision's names in `state_dict`.

A safetensors file of torchvision's weights loads unchanged:

    network = lamina.models.resnet50()
    network.load_state_dict(lamina.load("resnet50.safetensors"))
    network.eval()

Each file reads like the paper and uses nothing but `lamina.nn`.
"""

from .alexnet import AlexNet, alexnet
from .lenet import LeNet, lenet
from .mobilenet import MobileNetV2, mobilenet_v2
from .resnet import ResNet, resnet18, resnet50
from .vgg import VGG, vgg16

__all__ = [
    "VGG",
    "AlexNet",
    "LeNet",
    "MobileNetV2",
    "ResNet",
    "alexnet",
    "lenet",
    "mobilenet_v2",
    "resnet18",
    "resnet50",
    "vgg16",
]
