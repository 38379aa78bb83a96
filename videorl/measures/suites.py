"""The prompts, and the seeds of each, that all policies of a comparison are sampled with."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videorl.config import Recipe
from videorl.data.prompt_rows import PromptRow
from videorl.data.prompts import evaluation_prompts, load_prompts
from videorl.errors import ConfigError
from videorl.seeds import derive_seed
from videorl.types import Prompt

VBENCH = "vbench"
_FILE = "VBench_full_info.json"


@dataclass(frozen=True)
class Suite:
    """What every policy samples."""

    name: str
    prompts: tuple[Prompt, ...]
    samples: int
    """Videos of each prompt."""
    seed: int = 0

    def seeds(self, prompt: Prompt) -> tuple[int, ...]:
        """Return the seeds of a prompt's videos: the same for every policy.

        They are those of a run's own evaluation with `evaluation.seed` = `seed`.
        """
        names = range(self.samples)
        return tuple(derive_seed(self.seed, "evaluation", prompt.text, index) for index in names)


def suite_of(recipe: Recipe, samples: int, *, seed: int = 0, most: int = 0) -> Suite:
    """Return a suite of the prompts that a recipe evaluates with; arguments as of `read_suite`."""
    rows, source = evaluation_prompts(recipe), recipe.evaluation.source
    return _suite(source, rows, samples, seed, most)


def read_suite(source: str, samples: int, *, seed: int = 0, most: int = 0) -> Suite:
    """Read a suite.

    Args:
        source: What `prompts.source` takes, of which the held-out split is read; `vbench` or
            `vbench:DIMENSION` for the prompts of the `vbench` package.
        samples: Videos of each prompt (>= 1).
        seed: Their seeds derive from it.
        most: Evenly spaced prompts, so many at most; 0 = all.

    Raises:
        ConfigError: The `vbench` package is not there, or has no such dimension.
        PromptError: See `videorl.data.prompts.load_prompts`.
    """
    name, _, dimension = source.partition(":")
    rows = _of_vbench(dimension) if name == VBENCH else load_prompts(source, "held_out")
    return _suite(source, rows, samples, seed, most)


def _suite(source: str, rows: Sequence[PromptRow], samples: int, seed: int, most: int) -> Suite:
    rows = [row for row in rows if row.weight > 0]
    count = min(most or len(rows), len(rows))
    kept = [rows[place * len(rows) // count] for place in range(count)]
    prompts = tuple(row.prompt(index) for index, row in enumerate(kept))
    return Suite(source, prompts, samples, seed)


def _of_vbench(dimension: str) -> list[PromptRow]:
    found: dict[str, None] = {}
    known: set[str] = set()
    for row in json.loads(_package_file().read_text(encoding="utf-8")):
        known.update(row["dimension"])
        if not dimension or dimension in row["dimension"]:
            found[str(row["prompt_en"])] = None
    if not found:
        raise ConfigError(
            f"vbench has no dimension {dimension!r}; it has {', '.join(sorted(known))}"
        )
    return [PromptRow(text) for text in found]


def _package_file() -> Path:
    spec: Any = importlib.util.find_spec(VBENCH)  # which does not import it
    places = list(spec.submodule_search_locations or ()) if spec else []
    for place in places:
        if (file := Path(place) / _FILE).is_file():
            return file
    raise ConfigError(
        "the prompts of VBench are in the `vbench` package, which is not installed here; its pins "
        "do not go together with ours, so `pip download --no-deps vbench`, unpack the wheel, and "
        f"put its folder on PYTHONPATH: only {_FILE} is read. Or give a file of prompts"
    )
