"""Parts that lie in the user's folder, on Ray: none of them is in the package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small_runs import SETTINGS
from videorl.audit import audit
from videorl.data.archive import read_table
from videorl.run.folder import RunFolder
from videorl.run.sinks import read_metrics

# That workers find what lies in the user's folder, `test_scoring.py` shows; that own parts are
# learned with, `tests/unit/test_examples.py`.
pytestmark = [pytest.mark.ray, pytest.mark.long]

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs/examples"
MEASURE = """
def frames(video):
    return {"frames": len(video.frames)}
"""


def test_own_parts_run_for_two_steps(
    tiny_checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("own_reward", "own_objective", "own_selection"):
        shutil.copy(EXAMPLES / f"{name}.py", tmp_path)
    (tmp_path / "own_metric.py").write_text(MEASURE)
    settings = {
        **SETTINGS,
        "run_dir": tmp_path / "run",
        "policy.path": tiny_checkpoints["wan"],
        "rewards": "[{name: 'own_reward:Brightness', options: {scale: 2}, num_cpus: 0.25}]",
        "objective": "{name: 'own_objective:Hinge', wanted_margin: 2, timesteps_per_pair: 2}",
        "selection.rule": "own_selection:BestVsMedian",
        "metrics.unseen": "['own_metric:frames']",
    }
    command = [sys.executable, "-m", "jobs.cli", "train", "moving_shapes"]
    done = subprocess.run(
        [*command, *(f"{key}={value}" for key, value in settings.items())],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    folder = RunFolder(tmp_path / "run")
    rows = read_metrics(folder.metrics)
    assert len(rows) == 2
    # The policy is the reference at first: a margin of 0, and the whole wanted margin as the loss.
    assert rows[0]["learn/loss"] == pytest.approx(2.0, abs=1e-5)
    assert rows[0]["learn/margin"] == pytest.approx(0.0, abs=1e-5)
    assert rows[0]["hinge/satisfied"] == 0.0
    assert rows[0]["reward/brightness"] == rows[0]["reward/total"] > 0
    assert rows[0]["unseen/frames"] == 9.0
    monkeypatch.chdir(tmp_path)  # where the parts are found again
    assert audit(folder).contradictions == ()
    published = read_table(folder.archive, "steps")["published_digest"].to_pylist()
    assert len(set(published)) == 2, "every step changed the weights"
