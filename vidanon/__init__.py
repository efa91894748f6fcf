"""vidanon: gives everyone in a video a new, fictional face."""

__version__ = "0.1.0"
