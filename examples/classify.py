"""The five likeliest ImageNet classes of a picture, with torchvision's weights and without torch.

    python examples/classify.py resnet18 resnet18.safetensors picture.png

Where torchvision is installed, this writes its weights as such a file:

    from safetensors.torch import save_file
    from torchvision.models import resnet18
    save_file(resnet18(weights="DEFAULT").state_dict(), "resnet18.safetensors")
"""

from __future__ import annotations

import argparse
from pathlib import Path

import lamina
import numpy as np
from lamina import functional as F
from lamina import models
from matplotlib.image import imread

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colours


def image_from(path: Path) -> np.ndarray:
    """[1, 3, 224, 224]: the shorter side at 256, the centre of it, colours normalised."""
    pixels = imread(path)
    if pixels.dtype == np.uint8:
        pixels = pixels / np.float32(255)
    if pixels.ndim == 2:
        pixels = np.stack([pixels] * 3, axis=2)
    x = pixels[..., :3].astype(np.float32).transpose(2, 0, 1)[None]
    scale = 256 / min(x.shape[2:])
    size = tuple(max(256, round(length * scale)) for length in x.shape[2:])
    x = F.interpolate(x, size=size, mode="bilinear", antialias=True)
    top, left = ((length - 224) // 2 for length in size)
    x = x[:, :, top : top + 224, left : left + 224]
    mean, deviation = (np.float32(v).reshape(1, 3, 1, 1) for v in (MEAN, DEVIATION))
    return (x - mean) / deviation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    networks = [name for name in models.__all__ if name.islower() and name != "lenet"]
    parser.add_argument("network", choices=networks)
    parser.add_argument("weights", type=Path, help="a safetensors file")
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    network = getattr(models, options.network)()
    network.load_state_dict(lamina.load(options.weights))
    network.eval()
    with lamina.no_grad():
        logits = network(lamina.Tensor(image_from(options.picture)))
    probabilities = F.softmax(logits, dim=1).numpy()[0]
    for index in probabilities.argsort()[:-6:-1]:
        print(f"class {index:4}  {probabilities[index]:6.2%}")


if __name__ == "__main__":
    main()
