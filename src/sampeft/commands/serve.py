"""Serve a local web page to predict, correct and compare, until Ctrl-C."""

from __future__ import annotations

import logging
import sys

from sampeft.configs.serve import Config
from sampeft.engines import check_engine
from sampeft.errors import Terminated
from sampeft.options import check_paths
from sampeft.viewer.access import new_token
from sampeft.viewer.server import serve
from sampeft.viewer.settings import MIB, Settings


def check_names(config: Config) -> None:
    check_engine(config.engine)


def run(config: Config) -> int:
    check_paths(config)
    settings = Settings(
        tuple(config.runs),
        config.data,
        config.layout,
        tuple(config.evals),
        config.corrections,
        config.weights,
        config.engine,
        config.batch,
        config.max_upload_mib * MIB,
        config.max_waiting,
        config.keep_minutes,
        config.audit,
        None if config.no_token else new_token(),
    )
    logging.basicConfig(format="%(message)s", level=logging.WARNING)

    def ready(address: str) -> None:
        print(f"{address}", flush=True)
        if config.no_token:
            print("warning: without a token every user of this machine can open this address", file=sys.stderr)
        print("open this address in a browser; Ctrl-C ends. Research software, not a medical device.", file=sys.stderr)

    try:
        serve(settings, config.port, ready)
    except Terminated:
        raise
    except KeyboardInterrupt:  # the server has ended in order, and that was asked for
        return 0
    return 0
