"""Case D29: the mean over five cases is that of five, however many processes share them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fabricate import write_png

WORKER = Path(__file__).parents[1] / "fabricate" / "validate_worker.py"


@pytest.fixture
def five_cases(tmp_path: Path) -> Path:
    """The model finds 10 of 256 pixels; the truth's 10 share 10, 8, 6, 4 and 2 of them."""
    for i, shared in enumerate((10, 8, 6, 4, 2)):
        image, label = np.zeros((2, 16, 16), dtype=np.uint8)
        image[3, :10] = 200
        label[3, :shared] = 1
        label[9, shared:10] = 1
        write_png(tmp_path / "images" / f"p{i}.png", image)
        write_png(tmp_path / "labels" / f"p{i}.png", label)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "lesion": 1}}))
    return tmp_path


@pytest.mark.parametrize("processes", [2, 6])
def test_d29_padding_to_equal_shares_does_not_enter_the_mean(five_cases: Path, processes: int) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    done = subprocess.run([*command, str(WORKER), str(five_cases)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["processes"] == processes
    assert found["scores"] == pytest.approx({"p0": 1.0, "p1": 0.8, "p2": 0.6, "p3": 0.4, "p4": 0.2})
    assert found["mean"] == pytest.approx(0.6, abs=1e-12)  # padded to six cases it would be 0.6667
