"""Fewer tokens for the same meaning: stages over messages, what they may not touch, and what each of them did."""

from tokenkit.compress.spans import kept, protected

__all__ = ["kept", "protected"]
