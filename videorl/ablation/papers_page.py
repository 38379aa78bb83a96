"""The committed page of the papers' tables, from what `videorl measure` found."""

from __future__ import annotations

import json
import platform
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from videorl import __version__
from videorl.ablation.methods import FACTS, METHODS, adapter_folder
from videorl.ablation.plan import Run
from videorl.files import write_json, write_text

_INTRO = """\
# The papers' tables in shape, on Moving Shapes

Written by `{command}`; its numbers are in [{data}]({data}).

OnlineVPO and VideoReward print tables of methods by measures: VBench dimensions, FVD, win rates,
dynamic degree. This is such a table of a Wan model of 32 × 32 pixels, aligned in {steps} optimizer
steps of 5 prompts: minutes of a CPU each. It shows what the command measures, with which
uncertainty; it does not say which method is better for a real model, and nothing was tuned for it.

- **Methods.** All follow the shipped learned reward. DPO at the recipe's rate of 1e-3; SFT, RWR and
  ReFL at 3e-4, at which the [ablations](ablations.md) found them not to break. Offline DPO learns
  from pairs that the base sampled. All sample four videos of a prompt, ReFL one.
- **Seeds.** Trainings: {seeds}.
- **Prompts.** {prompts} held-out prompts, {samples} videos each, the same noise for all.
- **Rewards.** *oracle*: the pixel oracle, which nothing was trained on and which stands for people.
  *learned*: what all methods optimised. *recogniser*: a small VideoMAE, taught on clean clips
  alone, says how likely it finds the words of the prompt.
- **FVD** is against 256 clean clips of held-out prompts, on the recogniser's 32 features: compare
  its numbers within this page only.
- **Dynamic degree** is *moved light*, the share of light that moves within half a clip; *motion
  magnitude* is optical flow in pixels per frame. *Diversity* is the cosine distance of features
  between videos of a prompt, in percent.
- **VBench.** Temporal flickering needs no weights and is VBench's own. The other dimensions need
  published weights that were not at hand, and judge pictures of the real world.

**Intervals** are Student's 95 % intervals over training seeds. Differences are from the base (of
win rates: from 50 %), seed by seed on the same prompts; where all seeds are equal there is no
interval. *p* is Holm's over all rows of the last table. Of two seeds Student's interval is 12.7
standard errors to each side, and of win rates it may leave [0, 100]: with fewer than five seeds
this page shows the shape of the table, and no more.
"""


def write_page(path: Path, measured: Path, runs: Sequence[Run], command: str) -> None:
    """Write the page and, beside it, its numbers.

    Args:
        path: The Markdown page.
        measured: `measured.json` of `videorl measure`.
        runs: Trainings that are in it.
        command: That makes the page.
    """
    found: dict[str, Any] = json.loads(measured.read_text(encoding="utf-8"))
    data = path.with_suffix(".json")
    facts = [_facts(measured.parents[1], run) for run in runs]
    kept = {
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {"videorl": __version__, "python": platform.python_version()},
        "trainings": facts,
        **{name: found[name] for name in ("rows", "methods", "win_rates", "notes")},
    }
    write_json(data, kept)
    seeds: dict[str, int] = defaultdict(int)
    for run in runs:
        seeds[run.label] += 1
    intro = _INTRO.format(
        command=command,
        data=data.name,
        steps=runs[0].recipe.num_steps,
        seeds=", ".join(f"{name} {count}" for name, count in seeds.items()),
        prompts=found["settings"]["num_prompts"],
        samples=found["settings"]["samples"],
    )
    hours = sum(fact["cpu_seconds"] for fact in facts) / 3600
    made = f"{len(runs)} trainings, {hours:.2f} hours of processor time, {kept['date']}."
    tables = [_by_method(found), "## Every number\n\n" + _every(found)]
    notes = "\n".join(f"- {note}" for note in found["notes"])
    write_text(path, "\n\n".join([intro + "\n" + made, *tables, "## Notes", notes]) + "\n")


def _facts(root: Path, run: Run) -> Mapping[str, Any]:
    text = (adapter_folder(root, run) / FACTS).read_text(encoding="utf-8")
    facts = json.loads(text)
    return {name: facts[name] for name in ("method", "seed", "steps", "cpu_seconds")}


def _by_method(found: Mapping[str, Any]) -> str:
    """Return methods by measures, as papers print them: means over seeds with half intervals."""
    from videorl.measures.results import WIN_RATE, column_of

    base = {name: number["value"] for name, number in found["rows"][0]["numbers"].items()}
    cells: dict[str, dict[str, str]] = {"base": {}, **{name: {} for name in METHODS}}
    shown = [name for name in base if not name.startswith(("oracle ", "learned ", "recogniser "))]
    shown += [f"{WIN_RATE}, {model} total" for model in ("oracle", "learned", "recogniser")]
    for name in shown:
        scale = 100.0 if name.startswith(WIN_RATE) else column_of(name).scale
        first = 0.5 if name.startswith(WIN_RATE) else base.get(name)
        cells["base"][name] = "–" if first is None else f"{scale * first:.2f}"
        for row in found["methods"]:
            if row["measure"] == name:
                value = row["value"]
                reach = (value["high"] - value["low"]) / 2.0
                text = f"{scale * value['mean']:.2f}"
                if row["difference"] is not None:
                    text += f" ± {scale * reach:.2f}"
                cells[row["method"]][name] = text
    lines = ["| method | " + " | ".join(shown) + " |", "|---|" + "---:|" * len(shown)]
    for method, values in cells.items():
        lines.append(f"| {method} | " + " | ".join(values.get(n, "–") for n in shown) + " |")
    return "\n".join(lines)


def _every(found: Mapping[str, Any]) -> str:
    from videorl.evaluation.statistics import Interval
    from videorl.measures.results import OverSeeds
    from videorl.measures.tables import markdown, seed_cells

    rows = [
        OverSeeds(
            **{
                **row,
                "value": Interval(**row["value"]),
                "difference": row["difference"] and Interval(**row["difference"]),
            }
        )
        for row in found["methods"]
    ]
    return markdown(seed_cells(rows))
