"""torch.nn.functional's functions, on Tensors and on plain arrays.

Plain arrays in give plain arrays out; one Tensor among the arguments gives Tensors.
"""

from .activation import *
from .adaptive_pooling import *
from .conv import *
from .conv_transpose import *
from .cross_entropy import *
from .ctc import *
from .distance import *
from .dropout import *
from .embedding import *
from .fold import *
from .linear import *
from .local_response_norm import *
from .loss import *
from .margin_loss import *
from .normalization import *
from .padding import *
from .pooling import *
from .resize import *
from .rnn import *
from .shuffle import *
from .softmax import *
from .unpooling import *
