"""Data sets as NumPy arrays."""

from .digits import Split, digits
