"""The HTML page, section by section."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from videorl.files import write_text
from videorl.report.alarms import guard_section
from videorl.report.charts import chart, fixed, number, path_chart, percent, signed
from videorl.report.contents import RunContents, VideoPair, read_run
from videorl.report.displacement import worst_displacement
from videorl.report.style import CSS, SCRIPT
from videorl.report.verdicts import (
    best_of_k_chart,
    evaluation_table,
    label,
    verdict_list,
)
from videorl.report.video_cells import TINY_PX, clipped, video_cell, width_px
from videorl.run.progress import duration
from videorl.run.stages import stage_rows

NOTES = {
    "learn/loss": "Before the step's update. Of DPO log 2 = 0.693 where policy = reference.",
    "learn/margin": "How much the policy prefers the chosen video; of DPO more than the reference.",
    "learn/accuracy": "Share of the comparisons in which the policy is right.",
    "dpo/winner_error_change": "Prediction error on chosen videos, relative to the reference.",
    "evaluation/reward/total": "Total on held-out prompts.",
    "evaluation/step": "Optimizer steps of the weights that were evaluated.",
    "drift/predictions": "Mean squared difference of predictions on fixed latents and times.",
    "drift/adapter_norm": "Of B A over all layers.",
    "pairs/margin": "Chosen total less rejected total, as scored.",
    "staleness/steps": "Optimizer steps between the weights that sampled and those that learn.",
    "time/step_s": "Seconds per step.",
    "time/other_s": "Seconds of the step that no other stage has.",
    "time/wait_s": "Seconds that the learner waited for scored candidates.",
}

DRIFT = "Drift from the base"

SECTIONS = (
    (
        "Reward",
        ("reward/", "spread/", "disagreement/"),
        "Mean over the training candidates of each step, and the spread within their groups.",
    ),
    (
        "Held-out prompts while it learned",
        ("evaluation/",),
        "The same prompts and seeds every time. The band is the 95 % interval of the difference "
        "from the base, paired by prompt.",
    ),
    (
        DRIFT,
        ("drift/",),
        "How far the policy is from the model before any training, not from the reference, which "
        "moves along.",
    ),
    ("Unseen metrics", ("unseen/",), "Never optimised; if they break, the reward was hacked."),
    (
        "Learning",
        ("learn/", "dpo/", "regression/", "pairs/", "optimizer/"),
        "What each step learned. What compares with the reference follows its swaps.",
    ),
    (
        "Pipeline",
        (
            "staleness/",
            "time/",
            "work/",
            "groups/",
            "candidates/",
            "examples/",
            "weights/",
            "generator/",
            "pool/",
            "canary/",
            "fixed_prompts/",
            "tracker/",
        ),
        "Age of the candidates, time per stage, lost work, and worker pools.",
    ),
    ("Versions", ("policy/", "reference/"), "Optimizer step of the policy and of the reference."),
    ("Reward model", ("train/", "held_out/", "labels/"), "Training and held-out labels."),
)
"""Title, prefixes of the metrics, and introduction."""

OTHER = ("Other", "Metrics whose prefix this report does not know, under their own names.")
"""Title and introduction of the section for all metrics that no other section has."""

PREFIX_IN_TITLE = ("evaluation", "groups", "candidates", "pairs", "staleness", "spread", "work")
"""Prefixes without which the rest of a name says too little: `steps`, `dropped_group_lost`."""

FIRST_FACTS = ("steps", "id", "took", "startup", "steps learned", "seed")
"""Facts that everybody asks for; others are one click away."""
IN_HEADING = ("recipe", "num_steps")
"""Facts of the summary that the heading shows anyway."""


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into a run folder, finished or not, and return its path.

    Raises:
        RunFolderError: It is no run folder, or a file in it cannot be read.
    """
    path = run_dir / "report.html"
    write_text(path, page(read_run(run_dir)))
    return path


def page(run: RunContents) -> str:
    """Return the whole report as HTML."""
    body = [_header(run), guard_section(run), _changes(run), _evaluation(run), _videos(run)]
    body += [_times(run), *_curves(run), _config(run)]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(run.name)}</title><style>{CSS}</style></head>"
        f"<body>{''.join(body)}<script>{SCRIPT}</script></body></html>\n"
    )


def _header(run: RunContents) -> str:
    done = run.rows[-1]["step"] + 1 if run.rows else 0
    of = f" of {run.num_steps}" if run.num_steps else ""
    facts = [("steps", f"{done}{of}"), *([("id", run.run_id)] if run.run_id else [])]
    facts += [_fact(name, value) for name, value in _flat(run.summary) if name not in IN_HEADING]
    first = [fact for fact in facts if fact[0] in FIRST_FACTS]
    more = [fact for fact in facts if fact[0] not in FIRST_FACTS]
    rest = f"<details><summary>more</summary>{_facts(more)}</details>" if more else ""
    return f"<h1>{escape(run.name)}</h1>{_facts(first)}{rest}"


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    listed = "".join(f"<li>{escape(name)} <b>{escape(text)}</b></li>" for name, text in facts)
    return f'<ul class="facts">{listed}</ul>'


def _changes(run: RunContents) -> str:
    """Say which settings were not the same all the time; the configuration shows the last ones."""
    if not run.changes:
        return ""
    rows = "".join(
        f"<tr><td>{change.step}</td><td>{escape(change.key)}</td>"
        f"<td>{escape(_value(change.before))}</td><td>{escape(_value(change.after))}</td></tr>"
        for change in run.changes
    )
    head = "<tr><th>from step</th><th>setting</th><th>before</th><th>since</th></tr>"
    return f"<h2>Changed while it ran</h2><table>{head}{rows}</table>"


def _value(value: Any) -> str:
    return "unset" if value is None else str(value)


def _fact(name: str, value: Any) -> tuple[str, str]:
    if name.endswith("seconds"):
        return name.removesuffix("seconds").strip("_ ") or "took", duration(value)
    if name.endswith("digest"):
        return label(name), str(value)[:12]
    return label(name), str(value) if isinstance(value, str | int) else number(value)


def _flat(summary: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return the summary's plain facts by name; the evaluation has a section of its own."""
    facts = []
    for name, value in summary.items():
        if isinstance(value, Mapping):
            facts += [] if name == "evaluation" else _flat(value, f"{prefix}{name} ")
        elif value is not None and not isinstance(value, list | bool):
            facts.append((prefix + name, value))
    return facts


def _evaluation(run: RunContents) -> str:
    evaluation = run.summary.get("evaluation")
    if not run.summary:
        return (
            '<p class="note">This run has not finished: there is no summary yet. What follows is '
            "what it has written so far.</p>"
        )
    if not evaluation:
        return '<p class="note">This run had no evaluation on held-out prompts.</p>'
    total = evaluation["total"]
    prompts, wins = evaluation["num_prompts"], f"{100 * evaluation['win_rate']:.0f} %"
    return (
        f'<p class="lead">On {prompts} held-out prompts the mean reward went from '
        f"<b>{fixed(total['before'])}</b> to <b>{fixed(total['after'])}</b> "
        f"({signed(total['difference']['mean'])}); {wins} of the prompts got better.</p>"
        f'{verdict_list(evaluation)}<div class="evaluation">{evaluation_table(evaluation)}'
        f"{best_of_k_chart(evaluation)}</div>"
    )


def _videos(run: RunContents) -> str:
    if not run.videos:
        return ""
    sizes = [width_px(path) for pair in run.videos for path in (pair.before, pair.after) if path]
    wide = "" if max(sizes, default=0) <= TINY_PX else " wide"
    pairs = "".join(_pair(pair) for pair in run.videos)
    return (
        "<h2>Before and after</h2><p>The same held-out prompts and seeds. "
        '<button id="restart">Play all from the start</button></p>'
        f'<div class="videos{wide}">{pairs}</div>'
    )


def _pair(pair: VideoPair) -> str:
    change = ""
    if pair.before_score is not None and pair.after_score is not None:
        change = f" · {signed(pair.after_score - pair.before_score)}"
    return (
        f'<div class="pair"><p>{escape(clipped(pair.prompt))}</p><div class="sides">'
        f"{video_cell('before', pair.before, pair.before_score)}"
        f"{video_cell('after', pair.after, pair.after_score)}</div>"
        f"<small>seed {pair.seed}{change}</small></div>"
    )


def _curves(run: RunContents) -> list[str]:
    swaps, left = run.reference_swaps(), run.metrics()
    titles, sections = _titles(left), []
    for title, prefixes, introduction in (*SECTIONS, (OTHER[0], "", OTHER[1])):
        shown = [name for name in left if name.startswith(prefixes)]
        left = [name for name in left if name not in shown]
        if not shown:
            continue
        # The total, and what has a note, lead; then in the order of writing.
        shown.sort(key=lambda name: (name != "reward/total", name not in NOTES))
        drawn = [_chart(run, name, titles.get(name, name), swaps) for name in shown]
        swapped = " Dotted lines: the reference becomes the policy." if swaps else ""
        warning = _displacement(run) if title == "Learning" else ""
        if title == DRIFT and len(points := run.drift_and_total()) > 1:
            drawn.append(path_chart("Held-out total against drift", points, "drift/predictions"))
        sections.append(
            f"<h2>{title}</h2><p class='soft'>{introduction}{swapped}</p>{warning}"
            f'<div class="charts">{"".join(drawn)}</div>'
        )
    return sections


def _chart(run: RunContents, name: str, title: str, swaps: Sequence[int]) -> str:
    note, band = NOTES.get(name, ""), run.band(name)
    return chart(title, run.series(name), note=note, swaps=swaps, is_smoothed=not band, band=band)


def _titles(names: Sequence[str]) -> dict[str, str]:
    """Return a heading for every metric of a known section, with its prefix where words repeat.

    What no section has is headed by its own name: nobody else knows what its words mean.
    """
    words = Counter(map(label, names))
    known = tuple(prefix for _, prefixes, _ in SECTIONS for prefix in prefixes)
    titles = {}
    for name in filter(lambda name: name.startswith(known), names):
        prefix, shown = name.split("/")[0], label(name)
        if prefix in PREFIX_IN_TITLE or words[shown] > 1:
            shown = f"{prefix.replace('_', ' ')}: {shown}"
        titles[name] = shown[:1].upper() + shown[1:]
    return titles


def _displacement(run: RunContents) -> str:
    """Return a warning if the error on chosen videos rose while the margin grew, else ""."""
    found = worst_displacement(run)
    if found is None:
        return ""
    error, margin, step = found
    return (
        '<p class="note"><b>Likelihood displacement.</b> Until step '
        f"{step} the prediction error on <i>chosen</i> videos rose {percent(error)} above the "
        f"reference's while the margin grew to {number(margin)}: the policy got worse at both "
        "chosen and rejected videos, only less so at the chosen ones. A lower learning rate is "
        "the first remedy.</p>"
    )


def _times(run: RunContents) -> str:
    """Return a table of the stages of the session that finished the run."""
    stages = run.summary.get("stages")
    if not stages:
        return ""
    rows = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"
        for row in stage_rows(stages)
    )
    return f'<h2>Where the time went</h2><div class="scroll"><table>{rows}</table></div>'


def _config(run: RunContents) -> str:
    return f"<h2>Configuration</h2><pre>{escape(run.config)}</pre>"
