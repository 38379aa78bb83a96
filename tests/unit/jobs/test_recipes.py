"""`videorl recipes` answers at once."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import recipes
from videorl.recipes.kinds import FOLDERS


def test_the_command_lists_and_prints_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    program = (
        "import sys; from jobs import recipes; recipes.main([]); "
        "recipes.main(['moving_shapes', '--for', 'train_latent_reward', 'seed=3']); "
        "print({'torch', 'ray', 'numpy'} & set(sys.modules))"
    )
    root = Path(recipes.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "videorl train cogvideox_2b"
    assert sum(line.startswith("    Verified: ") for line in lines) == sum(
        len(list(folder.glob("*.yaml"))) for folder in FOLDERS.values()
    )
    assert re.search(r"\nseed: 3 +# override\n", done.stdout)
    assert lines[-1] == "set()"
    recipes.main(["--for", "train_reward"])
    assert "videorl train " not in capsys.readouterr().out
