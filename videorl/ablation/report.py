"""A Markdown page on a sweep: what was published, what is found here, and how certain it is."""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from videorl.ablation.plots import arms_plot, curves_plot
from videorl.ablation.statistics import paired_difference, verdict
from videorl.ablation.studies import STUDIES, Comparison, Study
from videorl.ablation.summary import Seeds, Summary, gains, interval
from videorl.evaluation.statistics import Interval
from videorl.files import write_text
from videorl.report.charts import fixed, signed

_MEASURES = {
    "total": "total",
    "visual_quality": "visual quality",
    "motion_quality": "motion quality",
    "text_alignment": "text alignment",
    "dynamic_degree": "dynamic degree",
}
_MORE = {"reward": "learned reward", "regressions": "regressions"}
"""Shown only where they say something else than the total, or a comparison needs them."""
_WIDTH = 108
_TITLES = {**_MEASURES, **_MORE}
_PUBLISHED = {1: "higher", -1: "lower", 0: "–"}


def write_report(page: Path, summary: Summary, command: str) -> None:
    """Write the page, its plots (`images/<name>/*.svg`) and the summary (`<name>.json`) beside it.

    Args:
        page: `<name>.md`.
        summary: Of `videorl.ablation.summary.summarise`.
        command: What makes this page, without its options; the page says so.
    """
    write_text(page.with_suffix(".json"), json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    sections = []
    for name, arms in summary["studies"].items():
        finished = {label: runs for label, runs in arms.items() if runs}
        if finished:
            images = f"images/{page.stem}/{name}"
            plots = _plots(finished)
            for kind, svg in plots.items():
                write_text(page.parent / f"{images}{kind}.svg", svg)
            shown = [f"![{STUDIES[name].title}]({images}{kind}.svg)" for kind in plots]
            sections.append(_section(STUDIES[name], finished, shown))
    head = _head(summary, page.stem, command)
    write_text(page, "\n\n".join([head, _overview(summary), *sections]) + "\n")


def _plots(arms: Mapping[str, Seeds]) -> dict[str, str]:
    """Return suffix of the file name -> SVG."""
    plots = {"": arms_plot(arms, _MEASURES)}
    if any(len(run["curve"]) > 1 for runs in arms.values() for run in runs):
        titles = {"total": "total", "visual_quality": "visual quality"}
        if _is_reward_learned(arms):
            titles = {"reward": "learned reward", "total": "oracle's total"}
        plots["-curve"] = curves_plot(arms, {**titles, "dynamic_degree": "dynamic degree"})
    return plots


def _is_reward_learned(arms: Mapping[str, Seeds]) -> bool:
    """Tell whether any run was trained on something else than the oracle's total."""
    last = [run["curve"][-1] for runs in arms.values() for run in runs]
    return any(values["reward"] != values["total"] for values in last)


def _head(summary: Summary, name: str, command: str) -> str:
    settings, missing = summary["settings"], summary["missing"]
    versions = "; ".join(
        ", ".join(f"{part} {number}" for part, number in parts.items())
        for parts in summary["versions"]
    )
    lost = f" **{len(missing)} runs are missing: {'; '.join(missing)}.**" if missing else ""
    changes = f" Changed for all arms: `{' '.join(summary['changes'])}`." * bool(summary["changes"])
    means = next(iter(summary["bases"].values()), {})
    base = ", ".join(f"{title} {fixed(means.get(name))}" for name, title in _MEASURES.items())
    text = f"""# The papers' claims in miniature

Written by `{command} --seeds {summary["seeds"]} --steps {summary["steps"]}
--report docs/{name}.md`. The numbers are in [{name}.json]({name}.json), from which `--from`
makes this page again without a run; the arms are in [studies.py](../videorl/ablation/studies.py).

Every arm aligns the shipped Moving Shapes policy, a Wan model of 32 × 32 pixels, on the pixel
oracle (but for the study of a learned reward): {summary["seeds"]} training seeds,
{summary["steps"]} optimizer steps, {settings["prompts.per_round"]} prompts per step. All else is
as in the shipped recipe, which was tuned for Flow-DPO with constant β and for no other
arm.{changes}

{summary["runs"]} runs, {summary["cpu_hours"]} hours of processor time, {summary["date"]};
{versions}.{lost}

**Numbers** are gains over the base on {settings["evaluation.num_prompts"]} held-out prompts with
{settings["evaluation.samples"]} samples each, the same prompts and noise for all. The total is the
sum of the three dimensions, each in [−1, 1]; dynamic degree is never optimised. The base has
{base}. *Examples* are the pairs, or single candidates, that an arm learned from in all its steps.

**Intervals** are 95 % intervals of the mean over training seeds (Student's t). Arms are compared
seed by seed: the difference of two arms with the same seed, which share their prompts. *As
published* and *opposite* mean that the interval leaves out zero, *undecided* that it does not;
where nothing comparable is published, *higher* or *lower*. Nothing is corrected for the number of
comparisons: of twenty true zeros, one is expected to be called something else. And a model of this
size under an exact reward shows what a mechanism does here, not what it does to a large model."""
    return _wrapped(text)


def _wrapped(text: str) -> str:
    """Fill the lines of every paragraph."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(
        textwrap.fill(paragraph, _WIDTH, break_long_words=False, break_on_hyphens=False)
        for paragraph in paragraphs
    )


def _overview(summary: Summary) -> str:
    rows = ["| study | verdicts |", "|---|---|"]
    opposite: list[str] = []
    for name, arms in summary["studies"].items():
        study = STUDIES[name]
        said: Counter[str] = Counter()
        for compared in study.comparisons:
            if (difference := _difference(arms, compared)) is None:
                continue
            said[found := verdict(difference, compared.sign)] += 1
            if found == "opposite":
                opposite.append(f"{_words(compared)} in {_TITLES[compared.measure]}")
        counted = ", ".join(f"{number} {what}" for what, number in said.most_common())
        rows.append(f"| [{study.title}](#{_anchor(study)}) | {counted or 'nothing to compare'} |")
    listed = "; ".join(opposite) or "none"
    return "\n".join(rows) + f"\n\nOpposite to what is published: {listed}."


def _anchor(study: Study) -> str:
    """Return the fragment that GitHub gives to the heading."""
    return re.sub(r"[^\w\- ]", "", study.title.lower()).replace(" ", "-")


def _section(study: Study, arms: Mapping[str, Seeds], images: list[str]) -> str:
    note = f"\n\n{study.note}" if study.note else ""
    return "\n\n".join(
        [
            f"## {study.title}",
            _wrapped(f"*Published.* {study.claim}{note}"),
            _arms_table(study, arms),
            _comparisons_table(study, arms),
            *images,
        ]
    )


def _columns(study: Study, arms: Mapping[str, Seeds]) -> dict[str, str]:
    used = {compared.measure for compared in study.comparisons}
    if _is_reward_learned(arms):
        used.add("reward")
    return {**_MEASURES, **{name: title for name, title in _MORE.items() if name in used}}


def _arms_table(study: Study, arms: Mapping[str, Seeds]) -> str:
    columns = _columns(study, arms)
    rows = [
        f"| arm | seeds | examples | {' | '.join(columns.values())} |",
        "|---" * (len(columns) + 3) + "|",
    ]
    for label, runs in arms.items():
        examples = sum(run["examples"] for run in runs) / len(runs)
        cells = [_interval(interval(runs, name)) for name in columns]
        rows.append(f"| {label} | {len(runs)} | {examples:.0f} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _comparisons_table(study: Study, arms: Mapping[str, Seeds]) -> str:
    rows = ["| comparison | measure | difference | published | verdict |", "|---|---|---|---|---|"]
    for compared in study.comparisons:
        difference = _difference(arms, compared)
        if difference is not None:
            said = verdict(difference, compared.sign)
            cells = (
                _words(compared),
                _TITLES[compared.measure],
                _interval(difference),
                _PUBLISHED[compared.sign],
                said if said == "undecided" else f"**{said}**",
            )
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _words(compared: Comparison) -> str:
    return f"{compared.better} − {compared.worse}"


def _difference(arms: Mapping[str, Seeds], compared: Comparison) -> Interval | None:
    """Return the paired difference, None where an arm or a common seed is missing."""
    labels = (compared.better, compared.worse)
    first, second = (gains(arms.get(label, ()), compared.measure) for label in labels)
    return paired_difference(first, second) if first.keys() & second.keys() else None


def _interval(found: Interval) -> str:
    if not math.isfinite(found.low):
        return signed(found.mean)
    return f"{signed(found.mean)} [{signed(found.low)}, {signed(found.high)}]"
