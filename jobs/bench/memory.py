"""How much memory a learner needs: DPO against ReFL, at growing frames and resolution.

    python -m jobs.bench.memory
    python -m jobs.bench.memory --frames 9 17 33 --sides 32 64 --svg memory.svg
    python -m jobs.bench.memory --recipe my_refl_recipe --frames 17 33 --sides 240 480

The shape of OnlineVPO's scalability figure (arXiv 2412.15159): DPO reads latents, ReFL keeps what
the gradient needs of the model, of the VAE's decoder and of the reward. Each number is the peak of
torch's allocations over one whole optimizer step on one example, above what was held before it:
weights of the policy are not in it. One pair has two videos at one time; ReFL samples one video.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from videorl.errors import ConfigError, VideorlError

if TYPE_CHECKING:
    from videorl.config import Recipe

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Point:
    """One size, and the peaks of one step there in bytes."""

    frames: int
    side: int
    """Height and width in pixels."""
    dpo: int
    refl: int


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        prog="python -m jobs.bench.memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("overrides", nargs="*", metavar="key=value", help="recipe settings to change")
    made.add_argument(
        "--recipe",
        default="moving_shapes_refl",
        help="name or path of a recipe with objective refl (default: %(default)s)",
    )
    made.add_argument(
        "--frames",
        type=int,
        nargs="+",
        default=[9, 17, 33],
        help="frames of the videos (default: %(default)s)",
    )
    made.add_argument(
        "--sides",
        type=int,
        nargs="+",
        default=[32, 64],
        help="pixels per side (default: %(default)s)",
    )
    made.add_argument("--json", type=Path, help="write the numbers to this file")
    made.add_argument("--svg", type=Path, help="draw them into this file")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every size, and print one line for each."""
    chosen = parser().parse_intermixed_args(argv)

    from videorl.recipes.reading import load_recipe

    recipe = load_recipe(chosen.recipe, chosen.overrides)
    if recipe.objective.learns_from != "prompts":
        raise ConfigError(
            f"--recipe must have objective.name=refl, which {chosen.recipe} has not: its policy is "
            "measured with both objectives"
        )
    points: list[Point] = []
    print(f"{'frames':>6} {'pixels':>9} {'DPO MiB':>9} {'ReFL MiB':>9} {'ratio':>6}")
    for side in chosen.sides:
        for frames in chosen.frames:
            points.append(point := measure(recipe, frames, side))
            print(
                f"{frames:>6} {side:>4}×{side:<4} {point.dpo / MIB:>9.1f} {point.refl / MIB:>9.1f} "
                f"{point.refl / point.dpo:>6.1f}",
                flush=True,
            )
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(one) for one in points], indent=2) + "\n")
    if chosen.svg:
        chosen.svg.write_text(draw(points))
    return 0


def measure(recipe: Recipe, frames: int, side: int) -> Point:
    """Take one step of each objective at one size."""
    import torch

    from jobs.bench.peak_memory import peak_bytes
    from videorl.learning.build import build_method, step_settings
    from videorl.learning.engines.local import LocalEngine
    from videorl.learning.learner import Learner
    from videorl.learning.stored_pairs import probe_sampling
    from videorl.objectives.dpo import FlowDPO
    from videorl.policies import load_policy
    from videorl.run.checkpoints import open_checkpoints
    from videorl.types import (
        Candidate,
        PreferencePair,
        Prompt,
        PromptExample,
        Score,
        ScoredCandidate,
        WeightVersion,
    )

    recipe = replace(
        recipe,
        # How many steps have no gradient plays no part in the peak.
        sampling=replace(
            recipe.sampling,
            num_frames=frames,
            height=side,
            width=side,
            num_inference_steps=recipe.objective.gradient_steps + 1,
        ),
        learner=replace(recipe.learner, micro_batch_size=1),
    )
    parts = frozenset({"transformer", "vae", "text_encoder"})
    policy = load_policy(recipe.policy, recipe.sampling, parts=parts, trainable=True)
    device = next(policy.trainable_module().parameters()).device
    embeds, negative = policy.encode(["a red circle moves left", recipe.sampling.negative_prompt])
    prompt = Prompt(0, "a red circle moves left")
    probe = load_policy(recipe.policy, probe_sampling(recipe.sampling), parts=parts - {"vae"})
    latents = probe.sample(embeds, None, [0])[0].cpu()
    del probe
    sampled = WeightVersion(0, "measured")
    both = [
        ScoredCandidate(Candidate(0, prompt, n, n, sampled, latents, None), Score({}, 0.0))
        for n in range(2)
    ]
    with tempfile.TemporaryDirectory() as folder:
        pairwise = replace(recipe, objective=FlowDPO(timesteps_per_pair=1))

        def learner(recipe: Recipe) -> Learner:
            return Learner(
                policy,
                build_method(recipe, policy),
                LocalEngine(policy.trainable_module(), recipe.optimizer),
                step_settings(recipe),
                open_checkpoints(recipe.checkpoint, Path(folder)),
            )

        pair = PreferencePair(prompt, embeds, both[0], both[1], margin=1.0)
        dpo, refl = learner(pairwise), learner(recipe)
        peak_of_dpo = peak_bytes(lambda: dpo.step(0, [pair]), device)
        example = PromptExample(prompt, embeds, negative)
        peak_of_refl = peak_bytes(lambda: refl.step(0, [example]), device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return Point(frames, side, peak_of_dpo, peak_of_refl)


def draw(points: Sequence[Point]) -> str:
    """Return an SVG: memory over frames, one panel per resolution, all to the same scale."""
    from videorl.report.charts import ticks

    width, height, left, top, bottom = 260, 240, 56, 34, 36
    sides = sorted({one.side for one in points})
    most = max(max(one.dpo, one.refl) for one in points) / MIB
    frames = [one.frames for one in points]
    first, last = min(frames), max(max(frames), min(frames) + 1)
    parts: list[str] = []
    for panel, side in enumerate(sides):
        start = panel * width + left

        def x(value: float, start: float = start) -> float:
            return start + (value - first) / (last - first) * (width - left - 16)

        def y(value: float) -> float:
            return height - bottom - value / most * (height - bottom - top)

        parts.append(f'<text class="title" x="{start}" y="16">{side} × {side} pixels</text>')
        for mark in ticks(0, most):
            end = start + width - left - 16
            at = f"{y(mark):.1f}"
            parts.append(f'<line class="grid" x1="{start}" x2="{end}" y1="{at}" y2="{at}"/>')
            if panel == 0:
                parts.append(
                    f'<text class="y" x="{start - 6}" y="{y(mark) + 4:.1f}">{mark:g}</text>'
                )
        here = sorted((one for one in points if one.side == side), key=lambda one: one.frames)
        for one in here:
            parts.append(
                f'<text class="x" x="{x(one.frames):.1f}" y="{height - 18}">{one.frames}</text>'
            )
        for name in ("dpo", "refl"):
            dots = [(x(one.frames), y(getattr(one, name) / MIB)) for one in here]
            path = " ".join(f"{a:.1f},{b:.1f}" for a, b in dots)
            parts.append(f'<polyline class="{name}" points="{path}"/>')
            parts += [f'<circle class="{name}" cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in dots]
    whole = width * len(sides)
    parts.append(
        f'<text class="y dpo" x="{whole - 60}" y="{height - 4}">DPO</text>'
        f'<text class="y refl" x="{whole - 16}" y="{height - 4}">ReFL</text>'
        f'<text x="{left}" y="{height - 4}">frames → peak of one step in MiB</text>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole} {height}"><style>{_STYLE}'
        f"</style>{''.join(parts)}</svg>\n"
    )


_STYLE = """
text { font: 11px sans-serif; fill: #555 } .x { text-anchor: middle } .y { text-anchor: end }
.title { font-weight: bold; fill: #222 } .grid { stroke: #ddd }
polyline { fill: none; stroke-width: 1.8 } polyline.dpo { stroke: #2563eb }
polyline.refl { stroke: #c2410c } .dpo { fill: #2563eb } .refl { fill: #c2410c }
polyline.dpo, polyline.refl { fill: none }
"""


if __name__ == "__main__":
    try:
        sys.exit(main())
    except VideorlError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
