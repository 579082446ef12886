"""Layers with torch's names, constructor arguments and state_dict keys."""

from . import init, utils
from .activation import *
from .container import *
from .conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)
from .distance import *
from .dropout import *
from .embedding import *
from .linear import Linear
from .loss import *
from .module import Module
from .normalization import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    LocalResponseNorm,
    RMSNorm,
)
from .padding import *
from .parameter import Parameter
from .pooling import *
from .resize import *
from .rnn import *
