"""Command line in, exit code out: 0 success, 2 wrong usage, 130 Ctrl-C, 143 SIGTERM, 1 anything else; one line for a mistake."""

from __future__ import annotations

import errno
import importlib
import logging
import os
import shutil
import sys
import textwrap
import warnings
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sampeft.errors import SampeftError, UsageError, is_full, unknown_name
from sampeft.stopping import answered, signal_of, signals_raised
from sampeft.store import cache_folder

if TYPE_CHECKING:
    from sampeft.arguments import Parser

COMMANDS = {
    "demo": "try it on synthetic CT or your data: train, score, compare with zero-shot, report",
    "plan": "predict memory and time of a training, and what to change where it does not fit",
    "train": "train a parameter-efficient method on a labelled data set",
    "sweep": "train every combination of option values, over folds and seeds, and rank them with confidence intervals",
    "evaluate": "score a trained run, or any label maps, against the ground truth; table and report.html",
    "compare": "compare evaluations of the same cases: confidence intervals, paired tests, ranks; Markdown, CSV, LaTeX",
    "oracle": "score the pretrained model with prompts from the ground truth: boxes, points, best automatic masks",
    "predict": "write label maps for new images; no labels, no prompts",
    "serve": "open a local web page to predict, correct and compare; nothing leaves this machine",
    "export": "write the prompt-free model as ONNX, OpenVINO or merged weights, checked against the run",
    "refine": "fit refiners (CRF, level sets, components, outline points) on a run's held-out cases",
    "reproduce": "train and score what a table or figure of the paper shows, and write ours beside the paper's",
    "check": "find every pairing, label and geometry fault of a data set, with file and fix",
    "fetch": "download public data sets or weights: shows the licence, resumes, verifies, unpacks",
    "params": "count total and trainable parameters of a backbone with a method",
    "info": "show versions, devices, and what each name means",
}


_LIBRARIES = (
    *("torch", "torchvision", "transformers", "timm", "peft", "accelerate", "huggingface_hub", "jsonargparse"),
    *("numpy", "scipy", "skimage", "matplotlib", "PIL", "nibabel", "pydicom", "highdicom", "SimpleITK", "rasterio"),
    *("pyogrio", "openvino", "onnx", "onnxruntime", "nncf", "fastapi", "starlette", "uvicorn"),
)


_FOLDER = "a folder is needed here; give another path"
_WRITABLE = "give a path that you may read and write"
_WRONG_PATH: dict[int | None, str] = {
    errno.EEXIST: _FOLDER,
    errno.ENOTDIR: _FOLDER,
    errno.EISDIR: "a file is needed here; give another path",
    errno.ENOENT: "it cannot be made there, either; give another path",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.EACCES: _WRITABLE,
    errno.EPERM: _WRITABLE,
    errno.EROFS: _WRITABLE,
}
"""What is wrong with a path that a user gave -> what to give instead."""


def main(arguments: Sequence[str] | None = None) -> int:
    argv = list(sys.argv[1:] if arguments is None else arguments)
    # The C locale's is `surrogateescape`, which ends at an umlaut as `strict` does.
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: names that the console cannot show end nothing
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage(), file=sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    if argv[0] == "--version":
        from sampeft import __version__

        print(f"sampeft {__version__}")
        return 0
    name, *rest = argv
    try:
        if name not in COMMANDS:
            raise unknown_name("command", name, COMMANDS)
        with signals_raised(), answered(f"sampeft {name}: stopping as soon as what has begun is whole"):
            return run(name, rest)
    except SampeftError as error:
        print(f"sampeft {name}: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt as error:
        print(f"sampeft {name}: stopped", file=sys.stderr)
        return 128 + signal_of(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        reason = error.strerror or str(error)
        print(f"sampeft {name}: error: {error.filename or 'file'}: {reason}{_hint(error)}", file=sys.stderr)
        return 2 if error.errno in _WRONG_PATH else 1


def _hint(error: OSError) -> str:
    cache, path = cache_folder(), Path(str(error.filename or ""))
    is_cache = path.is_absolute() and (path.is_relative_to(cache) or cache.is_relative_to(path))
    if is_full(error):
        return f"; free some space or {'set SAMPEFT_CACHE to' if is_cache else 'choose'} another folder"
    if is_cache:
        return "; set SAMPEFT_CACHE to a folder that can be written"
    return f"; {_WRONG_PATH[error.errno]}" if error.errno in _WRONG_PATH else ""


def usage() -> str:
    indent = 4 + max(map(len, COMMANDS))
    width = max(60, shutil.get_terminal_size((120, 24)).columns - 1)
    lines = [
        textwrap.fill(what, width, initial_indent=f"  {name}".ljust(indent), subsequent_indent=" " * indent)
        for name, what in COMMANDS.items()
    ]
    return (
        "sampeft turns a Segment Anything model into a segmenter for your own classes\n\n"
        "usage: sampeft COMMAND [options]\n\n"
        "sampeft COMMAND --help lists the options; --config FILE.yaml reads them.\n\n"
        + "\n".join(lines)
        + "\n\nResearch software, not a medical device."
    )


def run(name: str, argv: Sequence[str]) -> int:
    """Read the options of a command into its Config and call it; what is wrong in itself is told before any data are read.

    A module of `sampeft.commands` has `run`, and where there are registries to look into `check_names`.
    """
    config = parser_of(name).read(argv)
    quieten()
    module: Any = importlib.import_module(f"sampeft.commands.{name}")
    getattr(module, "check_names", lambda config: None)(config)
    return int(module.run(config) or 0)


def parser_of(name: str) -> Parser:
    from sampeft.arguments import Parser

    asked: Any = importlib.import_module(f"sampeft.configs.{name}")
    return Parser(name, COMMANDS[name], asked.Config, getattr(asked, "POSITIONAL", {}))


def quieten() -> None:
    """What libraries say to programmers is not for a command's user; what sampeft says is."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", module=rf"({'|'.join(_LIBRARIES)})(\.|$)")
    warnings.filterwarnings("ignore", message=r"Glyph \d+")  # which Matplotlib says in the name of who draws
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"


if __name__ == "__main__":
    sys.exit(main())
