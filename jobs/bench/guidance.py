"""What guidance by a latent reward does on Moving Shapes: each dimension alone, and two together.

    python -m jobs.bench.guidance
    python -m jobs.bench.guidance --reward runs/NAME/reward --weights 2 8 --prompts 16

Without `--reward` the labelled latents are sampled and the recipe `moving_shapes` of latent
rewards is trained first; both go on where they stopped. Then held-out prompts are sampled with
equal seeds without guidance, with each dimension at each weight, and with two dimensions mixed. The
pixel oracle, which had no part in sampling, scores them. It writes `guidance.json` and plots.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from jobs import command
from jobs.bench.measuring import write_json

if TYPE_CHECKING:
    import numpy as np

    from videorl.evaluation.statistics import Interval
    from videorl.types import Video

MIX = ("visual_quality", "text_alignment")
"""The two dimensions whose trade-off is measured."""


@dataclass(frozen=True)
class Measured:
    """Held-out scores of one request for guidance."""

    weights: Mapping[str, float]
    scores_PK: Mapping[str, np.ndarray]
    """Dimension, or `dynamic_degree` which nothing optimises -> mean over seeds of each prompt."""
    seconds: float


def _parser() -> argparse.ArgumentParser:
    parser = command.new_parser("python -m jobs.bench.guidance", __doc__)
    parser.add_argument("--reward", type=Path, help="a trained latent reward; default: train one")
    command.add_option(parser, "--out", Path("runs/bench_guidance"), "folder of the results")
    text = "weights of each dimension alone; mixtures share out the middle one"
    command.add_option(parser, "--weights", [2.0, 4.0, 8.0], text)
    command.add_option(parser, "--mixes", 3, "mixtures between two dimensions")
    command.add_option(parser, "--prompts", 32, "held-out prompts")
    command.add_option(parser, "--samples", 2, "samples of each prompt")
    parser.add_argument("--max-factor", type=float, help="where t/(1-t) is cut off")
    text = "name or path of the recipe of policy and sampling"
    command.add_option(parser, "--recipe", "moving_shapes", text)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write and print. Exit code 130 = stopped in training, can be continued."""
    options = _parser().parse_args(argv)
    command.start_logging()
    started = time.perf_counter()
    reward = options.reward or options.out / "latent_reward/reward"
    if options.reward is None and (code := _train(options.out)):
        return code
    trained = time.perf_counter()
    options.out.mkdir(parents=True, exist_ok=True)
    runs: list[Measured] = []
    found: dict[str, Any] = {}
    for run in _sweep(options, reward):
        runs.append(run)
        found = summary(runs)
        found["seconds"] = {
            "labelling and training": round(trained - started),
            "sampling": round(time.perf_counter() - trained),
        }
        write_json(options.out / "guidance.json", found)
    for name, text in plots(found).items():
        (options.out / f"{name}.svg").write_text(text)
    print(table(found))
    return 0


def _train(out: Path) -> int:
    """Label latents and train the reward in `out`, with the real commands; return the exit code."""
    from jobs import train_latent_reward
    from jobs.workshop import label_latents

    labels = out / "latents"
    label_latents.main(["moving_shapes", "--out", str(labels), "--candidates", "16"])
    places = [f"labels.{split}={labels}/{split}.csv" for split in ("train", "held_out")]
    return train_latent_reward.main(["moving_shapes", *places, f"run_dir={out / 'latent_reward'}"])


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


def _sweep(options: argparse.Namespace, folder: Path) -> Iterator[Measured]:
    import numpy as np

    from videorl.data.prompts import load_prompts
    from videorl.guidance.flow_nrg import MAX_FACTOR
    from videorl.guidance.latent_reward import load_latent_reward
    from videorl.guidance.sampler import GuidedSampler
    from videorl.policies import load_policy
    from videorl.policies.checkpoints import PARTS
    from videorl.policies.pipeline_policy import PipelinePolicy
    from videorl.recipes.reading import load_recipe
    from videorl.run.progress import progress
    from videorl.seeds import derive_seed

    recipe = load_recipe(options.recipe)
    policy = load_policy(recipe.policy, recipe.sampling, parts=PARTS)
    assert isinstance(policy, PipelinePolicy)
    reward = load_latent_reward(folder, recipe.policy, recipe.sampling)
    max_factor = MAX_FACTOR if options.max_factor is None else options.max_factor
    held_out = load_prompts("moving_shapes", "held_out")[: options.prompts]
    texts = [prompt.text for prompt in held_out]
    embeds, negative = policy.encode(texts), policy.encode([""])[0]
    wanted = requests(reward.config.dimensions, options.weights, options.mixes)
    with progress("requests", len(wanted)) as reach:
        for number, weights in enumerate(wanted):
            started = time.perf_counter()
            sampler = GuidedSampler(policy, reward, weights, max_factor=max_factor)
            rows: dict[str, list[float]] = {}
            for text, embedding in zip(texts, embeds, strict=True):
                seeds = [derive_seed(1234, "guidance", text, k) for k in range(options.samples)]
                videos = policy.decode(sampler.sample(embedding, negative, seeds))
                for name, mean in _oracle_means(videos, text).items():
                    rows.setdefault(name, []).append(mean)
            columns = {name: np.array(values) for name, values in rows.items()}
            seconds = time.perf_counter() - started
            yield Measured(weights, columns, seconds)
            reach(number + 1, seconds)


def _oracle_means(videos: Sequence[Video], text: str) -> dict[str, float]:
    """Return the mean of every score over the videos of one prompt."""
    from videorl.evaluation.unseen import unseen_metrics
    from videorl.rewards.moving_shapes import MovingShapesReward

    scores = MovingShapesReward().score(videos, [text] * len(videos))
    means = {name: fmean(each.dimensions[name] for each in scores) for name in scores[0].dimensions}
    return {**means, "dynamic_degree": fmean(unseen_metrics(v)["dynamic_degree"] for v in videos)}


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
        "without guidance": {name: float(mean_P.mean()) for name, mean_P in base.scores_PK.items()},
        "guided": [
            {
                "weights": dict(run.weights),
                "seconds": round(run.seconds, 1),
                "seconds without guidance": round(base.seconds, 1),
                "change": {name: asdict(change) for name, change in changes(run, base).items()},
            }
            for run in runs[1:]
        ],
    }


def table(found: Mapping[str, Any]) -> str:
    """Return a Markdown table of the changes in a `summary`."""
    base = found["without guidance"]
    rows = [
        "| weights | " + " | ".join(map(_words, base)) + " |",
        "|---" * (len(base) + 1) + "|",
        "| none | " + " | ".join(f"{mean:.3f}" for mean in base.values()) + " |",
    ]
    for run in found["guided"]:
        asked = ", ".join(f"{name.split('_')[0]} {w:g}" for name, w in run["weights"].items())
        changed = [run["change"][name] for name in base]
        cells = ["{mean:+.3f} [{low:+.3f}, {high:+.3f}]".format(**each) for each in changed]
        rows.append(f"| {asked} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def plots(found: Mapping[str, Any]) -> dict[str, str]:
    """Return SVG by name: each dimension over its own weight, and one dimension against another."""
    alone: dict[str, list[Mapping[str, Any]]] = {}
    for run in found["guided"]:
        if len(run["weights"]) == 1:
            alone.setdefault(next(iter(run["weights"])), []).append(run)
    mixed = [run for run in found["guided"] if len(run["weights"]) == 2]
    base = found["without guidance"]
    return {
        "guidance": _own_changes(alone),
        "guidance_trade_off": _trade_off(base, {name: alone.get(name, []) for name in MIX}, mixed),
    }


def _own_changes(alone: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Draw how each dimension changes when it alone is guided."""
    from videorl.report.plots import Line, line_plot

    lines: list[Line] = []
    for name, runs in alone.items():
        own = [run["change"][name] for run in runs]
        points = [
            (run["weights"][name], change["mean"]) for run, change in zip(runs, own, strict=True)
        ]
        ends = [(change["low"], change["high"]) for change in own]
        lines.append(Line(_words(name), [(0.0, 0.0), *points], intervals=[(0.0, 0.0), *ends]))
    return line_plot(
        "Guided by one dimension: its own change, held-out prompts",
        lines,
        x_name="weight of the dimension",
        y_name="change of the oracle's score",
    )


def _trade_off(
    base: Mapping[str, float],
    alone: Mapping[str, Sequence[Mapping[str, Any]]],
    mixed: Sequence[Mapping[str, Any]],
) -> str:
    """Draw the two dimensions of `MIX` against each other, from the base on and for mixtures."""
    from videorl.report.plots import Line, line_plot

    def path(name: str, runs: Sequence[Mapping[str, Any]], *, from_base: bool) -> Line:
        ends = [[base[each] + run["change"][each]["mean"] for each in MIX] for run in runs]
        notes = [" + ".join(f"{weight:g}" for weight in run["weights"].values()) for run in runs]
        if from_base:
            ends, notes = [[base[each] for each in MIX], *ends], ["0", *notes]
        return Line(_words(name), [(x, y) for x, y in ends], notes)

    lines = [path(f"{name} alone", runs, from_base=True) for name, runs in alone.items()]
    if mixed:
        lines.append(path(" + ".join(MIX), mixed, from_base=False))
    return line_plot(
        "Two dimensions against each other, held-out prompts; weights beside the points",
        lines,
        x_name=f"{_words(MIX[0])}, oracle",
        y_name=f"{_words(MIX[1])}, oracle",
    )


def _words(name: str) -> str:
    return name.replace("_", " ")


if __name__ == "__main__":
    raise SystemExit(command.run(main))
