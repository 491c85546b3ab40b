"""One lock for all models that share a base, since a method is put in and out."""

from __future__ import annotations

import threading
from typing import Any
from weakref import WeakKeyDictionary

import torch

_LOCKS: WeakKeyDictionary[Any, threading.RLock] = WeakKeyDictionary()
_MAKING = threading.Lock()


def lock_of(model: torch.nn.Module) -> threading.RLock:
    """The same lock for every `SemanticSam` over one promptable model; for another module, its own. It is kept beside the
    model, which is copied and pickled, as locks are not."""
    with _MAKING:
        return _LOCKS.setdefault(getattr(model, "sam", model), threading.RLock())
