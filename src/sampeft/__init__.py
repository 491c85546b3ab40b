"""sampeft: a Segment Anything model becomes an automatic, class-aware segmenter for your own labels."""

from __future__ import annotations

from importlib.metadata import version

__version__ = version("sampeft")
