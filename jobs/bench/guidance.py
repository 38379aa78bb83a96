"""What guidance by a latent reward does on Moving Shapes: each dimension alone, and two together.

    python -m jobs.bench.guidance
    python -m jobs.bench.guidance --reward runs/NAME/reward --weights 2 8 --prompts 16

Without `--reward` the labelled latents are sampled and the recipe `moving_shapes` of latent
rewards is trained first; both go on where they stopped. Then held-out prompts are sampled with
equal seeds without guidance, with each dimension at each weight, and with two dimensions mixed. The
pixel oracle scores all of them; it had no part in sampling. Written are `guidance.json` and plots.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.workshop.pretrain import progress
from videorl.errors import VideorlError

if TYPE_CHECKING:
    import numpy as np

    from videorl.evaluation.statistics import Interval

MIX = ("visual_quality", "text_alignment")
"""The two dimensions whose trade-off is measured."""


@dataclass(frozen=True)
class Measured:
    """Held-out scores of one request for guidance."""

    weights: Mapping[str, float]
    scores_PK: Mapping[str, np.ndarray]
    """Dimension, or `dynamic_degree` which nothing optimises -> mean over seeds of each prompt."""
    seconds: float


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        prog="python -m jobs.bench.guidance",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--reward", type=Path, help="a trained latent reward; default: train one")
    made.add_argument("--out", type=Path, default=Path("runs/bench_guidance"))
    made.add_argument(
        "--weights",
        type=float,
        nargs="+",
        default=[2.0, 4.0, 8.0],
        help="of each dimension alone; the middle one is shared out in mixtures "
        "(default: %(default)s)",
    )
    made.add_argument("--mixes", type=int, default=3, help="mixtures between two dimensions")
    made.add_argument("--prompts", type=int, default=32, help="held-out prompts")
    made.add_argument("--samples", type=int, default=2, help="of each prompt")
    made.add_argument("--max-factor", type=float, help="where t/(1-t) is cut off")
    made.add_argument("--recipe", default="moving_shapes", help="of the policy and its sampling")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write and print."""
    chosen = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    started = time.perf_counter()
    folder = chosen.reward or _train(chosen.out)
    trained = time.perf_counter()
    chosen.out.mkdir(parents=True, exist_ok=True)
    runs: list[Measured] = []
    found: dict[str, Any] = {}
    for run in _sweep(chosen, folder):
        runs.append(run)
        found = summary(runs)
        found["seconds"] = {
            "labelling and training": round(trained - started),
            "sampling": round(time.perf_counter() - trained),
        }
        (chosen.out / "guidance.json").write_text(json.dumps(found, indent=2) + "\n")
    for name, text in plots(found).items():
        (chosen.out / f"{name}.svg").write_text(text)
    print(table(found))
    return 0


def _train(out: Path) -> Path:
    from jobs import train_latent_reward
    from jobs.workshop import label_latents

    labels, run = out / "latents", out / "latent_reward"
    label_latents.main(["moving_shapes", "--out", str(labels), "--candidates", "16"])
    places = [f"labels.{one}={labels}/{one}.csv" for one in ("train", "held_out")]
    if train_latent_reward.main(["moving_shapes", *places, f"run_dir={run}"]):
        raise SystemExit("stopped; the same command goes on")
    return run / "reward"


def requests(
    dimensions: Sequence[str], weights: Sequence[float], num_mixes: int
) -> list[dict[str, float]]:
    """Return what is weighted: nothing, each dimension alone, mixtures of the middle weight."""
    alone = [{name: weight} for name in dimensions for weight in weights]
    strength = sorted(weights)[len(weights) // 2]
    shares = [(number + 1) / (num_mixes + 1) for number in range(num_mixes)]
    mixed = [
        {MIX[0]: (1 - share) * strength, MIX[1]: share * strength}
        for share in shares
        if set(MIX) <= set(dimensions)
    ]
    return [{}, *alone, *mixed]


def _sweep(chosen: argparse.Namespace, folder: Path) -> Iterator[Measured]:
    import numpy as np

    from videorl.data.prompts import load_prompts
    from videorl.evaluation.unseen import unseen_metrics
    from videorl.guidance.flow_nrg import MAX_FACTOR
    from videorl.guidance.latent_reward import load_latent_reward
    from videorl.guidance.sampler import GuidedSampler
    from videorl.policies import load_policy
    from videorl.policies.checkpoints import PARTS
    from videorl.policies.pipeline_policy import PipelinePolicy
    from videorl.recipes.reading import load_recipe
    from videorl.rewards.moving_shapes import MovingShapesReward
    from videorl.seeds import derive_seed

    recipe = load_recipe(chosen.recipe)
    policy = load_policy(recipe.policy, recipe.sampling, parts=PARTS)
    assert isinstance(policy, PipelinePolicy)
    reward = load_latent_reward(folder, recipe.policy, recipe.sampling)
    oracle = MovingShapesReward()
    max_factor = MAX_FACTOR if chosen.max_factor is None else chosen.max_factor
    rows = load_prompts("moving_shapes", "held_out")[: chosen.prompts]
    texts = [row.text for row in rows]
    embeds, negative_LD = policy.encode(texts), policy.encode([""])[0]
    wanted = requests(reward.config.dimensions, chosen.weights, chosen.mixes)
    with progress("requests", len(wanted)) as on_step:
        for number, weights in enumerate(wanted):
            started = time.perf_counter()
            sampler = GuidedSampler(policy, reward, weights, max_factor=max_factor)
            rows: dict[str, list[float]] = {}
            for text, embeds_LD in zip(texts, embeds, strict=True):
                seeds = [derive_seed(1234, "guidance", text, k) for k in range(chosen.samples)]
                videos = policy.decode(sampler.sample(embeds_LD, negative_LD, seeds))
                scores = oracle.score(videos, [text] * len(videos))
                for name in oracle.dimensions:
                    mean = float(np.mean([score.dimensions[name] for score in scores]))
                    rows.setdefault(name, []).append(mean)
                moving = [unseen_metrics(video)["dynamic_degree"] for video in videos]
                rows.setdefault("dynamic_degree", []).append(float(np.mean(moving)))
            columns = {name: np.array(values) for name, values in rows.items()}
            seconds = time.perf_counter() - started
            yield Measured(weights, columns, seconds)
            on_step(number + 1, seconds)


def changes(run: Measured, base: Measured) -> dict[str, Interval]:
    """Return the paired change of every score, with its 95 % interval over prompts."""
    from videorl.evaluation.statistics import paired_bootstrap

    return {
        name: paired_bootstrap(base.scores_PK[name], values)
        for name, values in run.scores_PK.items()
    }


def summary(runs: Sequence[Measured]) -> dict[str, Any]:
    """Return everything as JSON; the first run is the one without guidance."""
    base = runs[0]
    return {
        "num_prompts": len(next(iter(base.scores_PK.values()))),
        "without guidance": {name: float(one.mean()) for name, one in base.scores_PK.items()},
        "guided": [
            {
                "weights": dict(run.weights),
                "seconds": round(run.seconds, 1),
                "seconds without guidance": round(base.seconds, 1),
                "change": {name: asdict(one) for name, one in changes(run, base).items()},
            }
            for run in runs[1:]
        ],
    }


def table(found: Mapping[str, Any]) -> str:
    """Return a Markdown table of the changes in a `summary`."""
    base = found["without guidance"]
    rows = [
        "| weights | " + " | ".join(name.replace("_", " ") for name in base) + " |",
        "|---" * (len(base) + 1) + "|",
        "| none | " + " | ".join(f"{mean:.3f}" for mean in base.values()) + " |",
    ]
    for run in found["guided"]:
        asked = ", ".join(f"{name.split('_')[0]} {one:g}" for name, one in run["weights"].items())
        changed = [run["change"][name] for name in base]
        cells = [f"{one['mean']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]" for one in changed]
        rows.append(f"| {asked} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def plots(found: Mapping[str, Any]) -> dict[str, str]:
    """Return SVG by name: each dimension over its own weight, and one dimension against another."""
    from videorl.report.plots import Line, line_plot

    base = found["without guidance"]
    alone: dict[str, list[Mapping[str, Any]]] = {}
    for run in found["guided"]:
        if len(run["weights"]) == 1:
            alone.setdefault(next(iter(run["weights"])), []).append(run)
    lines: list[Line] = []
    for name, some in alone.items():
        own = [run["change"][name] for run in some]
        points = [(run["weights"][name], one["mean"]) for run, one in zip(some, own, strict=True)]
        ends = [(one["low"], one["high"]) for one in own]
        words = name.replace("_", " ")
        lines.append(Line(words, [(0.0, 0.0), *points], intervals=[(0.0, 0.0), *ends]))
    rising = line_plot(
        "Guided by one dimension: its own change, held-out prompts",
        lines,
        x_name="weight of the dimension",
        y_name="change of the oracle's score",
    )

    def path(words: str, some: Sequence[Mapping[str, Any]], *, from_base: bool) -> Line:
        ends = [tuple(base[one] + run["change"][one]["mean"] for one in MIX) for run in some]
        points = [(x, y) for x, y in ends]
        notes = [" + ".join(f"{one:g}" for one in run["weights"].values()) for run in some]
        if from_base:
            points, notes = [(base[MIX[0]], base[MIX[1]]), *points], ["0", *notes]
        return Line(words, points, notes)

    mixed = [run for run in found["guided"] if len(run["weights"]) == 2]
    trade = line_plot(
        "Two dimensions against each other, held-out prompts; weights beside the points",
        [
            *(
                path(f"{name} alone".replace("_", " "), alone.get(name, []), from_base=True)
                for name in MIX
            ),
            *([path(" + ".join(MIX).replace("_", " "), mixed, from_base=False)] if mixed else []),
        ],
        x_name=f"{MIX[0].replace('_', ' ')}, oracle",
        y_name=f"{MIX[1].replace('_', ' ')}, oracle",
    )
    return {"guidance": rising, "guidance_trade_off": trade}


if __name__ == "__main__":
    try:
        sys.exit(main())
    except VideorlError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
