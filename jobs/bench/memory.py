"""How much memory a learner needs: DPO, one video at a time or a pair at once, and ReFL, in pieces.

    python -m jobs.bench.memory
    python -m jobs.bench.memory --frames 9 17 33 --sides 32 64 --svg memory.svg
    python -m jobs.bench.memory --recipe my_refl_recipe --frames 17 33 --sides 240 480

The shape of OnlineVPO's scalability figure (arXiv 2412.15159): DPO reads latents, ReFL keeps what
the gradient needs of the model, of the VAE's decoder and of the reward. Each number is the peak of
torch's allocations over one whole optimizer step on one example (the second: the first also makes
the optimizer's state), above what was held before it, so without the policy's weights. What
`videorl plan` counts for the same steps of DPO stands beside it. DPO holds the activations of both
videos of a pair (`learner.micro_batch_size=2`), or of one after the other (`1`); ReFL samples one
video, and decodes it whole or in pieces (`objective.checkpoint_decode`).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs import command
from jobs.bench.measuring import add_json, write_json
from videorl.errors import ConfigError
from videorl.types import Prompt

if TYPE_CHECKING:
    from videorl.config import Recipe
    from videorl.embedding import Embedding
    from videorl.types import PreferencePair

MIB = 2**20
PROMPT = Prompt(0, "a red circle moves left")


@dataclass(frozen=True, slots=True)
class Point:
    """One size, and the peaks of one step there in bytes."""

    frames: int
    side: int
    """Height and width in pixels."""
    one: int
    """DPO, one video at a time."""
    dpo: int
    """DPO, both videos of a pair at once."""
    refl: int
    pieces: int
    """ReFL, the clip decoded a few frames at a time."""
    planned_one: float
    planned_dpo: float
    """What the plan counts for `one` and `dpo`."""


def _parser() -> argparse.ArgumentParser:
    parser = command.new_parser("python -m jobs.bench.memory", __doc__)
    command.add_overrides(parser, "recipe settings to change")
    text = "name or path of a recipe with objective refl"
    command.add_option(parser, "--recipe", "moving_shapes_refl", text)
    command.add_option(parser, "--frames", [9, 17, 33], "frames of the videos")
    command.add_option(parser, "--sides", [32, 64], "pixels per side")
    add_json(parser)
    parser.add_argument("--svg", type=Path, help="draw them into this file")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every size, and print one line for each."""
    options = _parser().parse_intermixed_args(argv)

    from videorl.recipes.reading import load_recipe

    recipe = load_recipe(options.recipe, options.overrides)
    if recipe.objective.learns_from != "prompts":
        raise ConfigError(
            f"--recipe must have objective.name=refl, which {options.recipe} has not: its policy "
            "is measured with both objectives"
        )
    points: list[Point] = []
    titles = ("one MiB", "pair MiB", "ReFL MiB", "pieces", "pair/one", "ReFL/pair")
    titles += ("plan/one", "plan/pair")
    print(f"{'frames':>6} {'pixels':>9} " + " ".join(f"{title:>9}" for title in titles))
    for side in options.sides:
        for frames in options.frames:
            points.append(point := measure(recipe, frames, side))
            print(
                f"{frames:>6} {side:>4}×{side:<4} {point.one / MIB:>9.1f} {point.dpo / MIB:>9.1f} "
                f"{point.refl / MIB:>9.1f} {point.pieces / MIB:>9.1f} "
                f"{point.dpo / point.one:>9.2f} "
                f"{point.refl / point.dpo:>9.1f} "
                f"{point.planned_one / point.one:>9.2f} {point.planned_dpo / point.dpo:>9.2f}",
                flush=True,
            )
    write_json(options.json, [asdict(point) for point in points])
    if options.svg:
        options.svg.write_text(draw(points))
    return 0


def measure(recipe: Recipe, frames: int, side: int) -> Point:
    """Take one step of each objective on videos of `frames` frames of `side` × `side` pixels."""
    import torch

    from jobs.bench.peak_memory import peak_bytes
    from videorl.learning.build import build_method, step_settings
    from videorl.learning.engines.local import LocalEngine
    from videorl.learning.learner import Learner
    from videorl.objectives.dpo import FlowDPO
    from videorl.objectives.objective import RewardObjective
    from videorl.policies import load_policy
    from videorl.policies.checkpoints import PARTS
    from videorl.run.checkpoints import open_checkpoints
    from videorl.types import PromptExample

    assert isinstance(recipe.objective, RewardObjective)
    # Steps without gradient play no part in the peak: one is enough.
    num_steps = recipe.objective.gradient_steps + 1
    size = {"num_frames": frames, "height": side, "width": side, "num_inference_steps": num_steps}
    recipe = replace(
        recipe,
        sampling=replace(recipe.sampling, **size),
        learner=replace(recipe.learner, micro_batch_size=2, prefetch=False),
    )
    policy = load_policy(recipe.policy, recipe.sampling, parts=PARTS, trainable=True)
    module = policy.trainable_module()
    device = next(module.parameters()).device
    embeds, negative = policy.encode([PROMPT.text, recipe.sampling.negative_prompt])

    def peak_of(recipe: Recipe, example: Any) -> int:
        with tempfile.TemporaryDirectory() as folder:
            learner = Learner(
                policy,
                build_method(recipe, policy),
                LocalEngine(module, recipe.optimizer),
                step_settings(recipe),
                open_checkpoints(recipe.checkpoint, Path(folder)),
            )
            learner.step(0, [example])
            return peak_bytes(lambda: learner.step(1, [example]), device)

    dpo = replace(recipe, objective=FlowDPO(timesteps_per_pair=1))
    pair, prompt = _pair(recipe, embeds), PromptExample(PROMPT, embeds, negative)
    ways = [replace(recipe.objective, checkpoint_decode=in_pieces) for in_pieces in (False, True)]
    whole, pieces = (peak_of(replace(recipe, objective=way), prompt) for way in ways)
    planned_one, planned_dpo = (_planned(dpo, number, device.type == "cuda") for number in (1, 2))
    point = Point(
        frames,
        side,
        one=peak_of(replace(dpo, learner=replace(dpo.learner, micro_batch_size=1)), pair),
        dpo=peak_of(dpo, pair),
        refl=whole,
        pieces=pieces,
        planned_one=planned_one,
        planned_dpo=planned_dpo,
    )
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return point


def _planned(recipe: Recipe, num_videos: int, on_gpu: bool) -> float:
    """Return the bytes that the plan counts for a step, above what is held before it."""
    from videorl.planning.memory import PolicyCounts, has_checkpointing
    from videorl.planning.models import read_configs

    counts = PolicyCounts(recipe, read_configs(recipe.policy.path), on_gpu=on_gpu)
    video = counts.learner(has_checkpointing(recipe, counts.sizes.transformer))
    memory = counts.memory(num_videos * video.num_bytes, num_ranks=1)
    return memory.gradients + memory.activations


def _pair(recipe: Recipe, embeds: Embedding) -> PreferencePair:
    """Return a pair of twice the same latents, sampled in one step."""
    from videorl.learning.stored_pairs import probe_sampling
    from videorl.policies import load_policy
    from videorl.types import Candidate, PreferencePair, Score, ScoredCandidate, WeightVersion

    parts = frozenset({"transformer", "text_encoder"})
    probe = load_policy(recipe.policy, probe_sampling(recipe), parts=parts)
    latents_CTHW = probe.sample(embeds, None, [0])[0].cpu()
    sampled = WeightVersion(0, "measured")
    chosen, rejected = (
        ScoredCandidate(Candidate(0, PROMPT, n, n, sampled, latents_CTHW, None), Score({}, 0.0))
        for n in range(2)
    )
    return PreferencePair(PROMPT, embeds, chosen, rejected, margin=1.0)


_LABELS = {
    "one": "DPO, one video at a time",
    "dpo": "DPO",
    "refl": "ReFL",
    "pieces": "ReFL in pieces",
}


def draw(points: Sequence[Point]) -> str:
    """Return an SVG: memory over frames, a line for each objective and resolution."""
    from videorl.report.plots import Line, line_plot

    lines = [
        Line(
            f"{label}, {side} × {side} pixels",
            [(at.frames, getattr(at, name) / MIB) for at in points if at.side == side],
        )
        for side in dict.fromkeys(point.side for point in points)
        for name, label in _LABELS.items()
    ]
    return line_plot("Memory of one learner step", lines, x_name="frames", y_name="peak, MiB")


if __name__ == "__main__":
    raise SystemExit(command.run(main))
