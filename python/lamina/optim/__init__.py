"""Optimisers with torch's names, options and results."""

from .adam import Adam, AdamW
from .optimizer import Optimizer
from .sgd import SGD
