"""Fewer tokens for the same meaning: stages over messages, what they may not touch, and what each of them did."""

from tokenkit.compress.diff import apply, delta
from tokenkit.compress.pipeline import STAGES, Aim, Compressed, Rewriting, Stage, compress, touchable
from tokenkit.compress.recall import recall
from tokenkit.compress.spans import kept, protected

__all__ = [
    "STAGES",
    "Aim",
    "Compressed",
    "Rewriting",
    "Stage",
    "apply",
    "compress",
    "delta",
    "kept",
    "protected",
    "recall",
    "touchable",
]
