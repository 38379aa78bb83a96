"""What each accelerator of sampling gains against the stock pipeline, and what it does to samples.

    python -m jobs.bench.acceleration
    python -m jobs.bench.acceleration --sizes tiny --repeats 1 --only "merged LoRA"

Wan models with random weights and a LoRA with an effect, in this process. The stock diffusers
pipeline, with the exported adapter loaded as diffusers does it, and our sampler take turns with the
same embeddings and seeds; a ratio is the median over such pairs, both with decoding, after a call
to warm up. Above 1, ours is faster. Processor time of one thread counts, so that other load
falsifies little. The difference is that of latents from the stock pipeline's, relative to their
norm. An accelerator that cannot work here is named with the reason.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from jobs import command
from jobs.bench.measuring import add_json, write_json
from videorl.settings.model import LoraConfig, PolicyConfig, SamplingConfig

if TYPE_CHECKING:
    from torch import Tensor

    from videorl.embedding import Embedding
    from videorl.protocols import DifferentiablePolicy

_ADAPTER_SIZE = 0.02
"""Standard deviation of the adapter's random numbers, B's included."""
_BATCH = {"guidance_in_one_batch": True}
_MERGE = {"merge_lora": True}
_CACHE = {"step_cache": "first_block"}
_COMPILE = {"compile": "inductor"}
WAYS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "our sampler": ({}, {}),
    "guidance in one batch": ({}, _BATCH),
    "merged LoRA": ({}, _MERGE),
    "compiled": (_COMPILE, {}),
    "attention: _native_math": ({"attention_backend": "_native_math"}, {}),
    "attention: _native_flash": ({"attention_backend": "_native_flash"}, {}),
    "step cache": ({}, _CACHE),
    "one batch, merged": ({}, _BATCH | _MERGE),
    "one batch, merged, compiled": (_COMPILE, _BATCH | _MERGE),
    "one batch, merged, step cache": ({}, _BATCH | _MERGE | _CACHE),
}
"""Name -> changes of `policy` and of `sampling`."""


@dataclass(frozen=True)
class Size:
    """A random model, and the videos that it makes."""

    width: int
    layers: int
    num_frames: int
    side_px: int
    steps: int = 8
    candidates: int = 4

    def sampling(self) -> SamplingConfig:
        """Return the settings of a plain sampler."""
        return SamplingConfig(
            num_frames=self.num_frames,
            height=self.side_px,
            width=self.side_px,
            num_inference_steps=self.steps,
            max_sequence_length=32,
        )


SIZES = {"tiny": Size(128, 5, 9, 32), "medium": Size(512, 8, 9, 64, steps=4, candidates=2)}
"""`tiny` is the shipped model of Moving Shapes."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every way at every size, and print a line for each."""
    parser = command.new_parser("python -m jobs.bench.acceleration", __doc__)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY")
    command.add_option(parser, "--repeats", 5, "pairs that are measured of each way")
    add_json(parser)
    options = parser.parse_args(argv)

    import torch

    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for size in options.sizes:
        print(f"\n{size:<34}{'stock / ours':>13}{'difference':>12}  of its norm", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            made = make(SIZES[size], Path(folder))
            found[size] = {way: measured(made, way, options.repeats) for way in options.only}
    write_json(options.json, found)
    return 0


@dataclass
class Made:
    """A checkpoint on disk, the stock pipeline that has read it, and what both are given."""

    folder: Path
    size: Size
    weights: Mapping[str, Tensor]
    embeds: tuple[Embedding, Embedding]
    stock: Any
    """Its pipeline."""

    @cached_property
    def expected(self) -> Tensor:
        """The stock pipeline's latents."""
        return call_stock(self, "latent")


def make(size: Size, folder: Path) -> Made:
    """Write a random model and a random adapter, and load both into the stock pipeline."""
    import torch
    from diffusers.pipelines.wan.pipeline_wan import WanPipeline

    from videorl.pretraining.checkpoint import build_components, save_checkpoint

    components = build_components(0, width=size.width, layers=size.layers)
    save_checkpoint(components, folder / "model", torch.float32)
    policy = load(folder, size)
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: one + _ADAPTER_SIZE * torch.randn(one.shape, generator=generator)
        for name, one in policy.weights().items()
    }
    policy.load_weights(weights)
    policy.export(folder / "adapter")
    stock: Any = WanPipeline.from_pretrained(folder / "model")
    stock.load_lora_weights(folder / "adapter")
    stock.set_progress_bar_config(disable=True)
    prompt, negative = policy.encode(["a large red circle moves left", ""])
    return Made(folder, size, weights, (prompt, negative), stock)


def load(
    folder: Path,
    size: Size,
    policy: Mapping[str, Any] | None = None,
    sampling: Mapping[str, Any] | None = None,
) -> DifferentiablePolicy:
    """Return our policy on the checkpoint, with changed settings."""
    from videorl.policies import load_policy
    from videorl.policies.checkpoints import PARTS

    config = PolicyConfig(
        path=str(folder / "model"), lora=LoraConfig(rank=32), dtype="float32", **(policy or {})
    )
    return load_policy(config, replace(size.sampling(), **(sampling or {})), parts=PARTS)


def measured(made: Made, way: str, repeats: int) -> dict[str, Any]:
    """Let the stock pipeline and our sampler take turns; return the ratio and the difference."""
    from videorl.errors import ConfigError
    from videorl.policies.compiling import num_failures
    from videorl.sampling.canary import difference

    policy_changes, sampling_changes = WAYS[way]
    try:
        policy = load(made.folder, made.size, policy_changes, sampling_changes)
    except ConfigError as error:
        print(f"{way:<34}{error}", flush=True)
        return {"cannot work here": str(error)}
    policy.load_weights(made.weights)
    seeds, before = range(made.size.candidates), num_failures()

    def ours() -> None:
        policy.decode(policy.sample(*made.embeds, seeds))

    moved = difference(policy.sample(*made.embeds, seeds), made.expected)
    policy.decode(made.expected)
    pairs = [(_seconds(lambda: call_stock(made, "np")), _seconds(ours)) for _ in range(repeats)]
    ratios = sorted(stock_s / our_s for stock_s, our_s in pairs)
    note = "  (it did not compile)" * (num_failures() - before)
    print(f"{way:<34}{median(ratios):>13.2f}{moved:>12.2g}{note}", flush=True)
    return {
        "stock / ours": median(ratios),
        "lowest and highest": (ratios[0], ratios[-1]),
        "stock, s": median(stock_s for stock_s, _ in pairs),
        "difference": moved,
        "compile failures": num_failures() - before,
    }


def call_stock(made: Made, output_type: str) -> Any:
    """Sample the candidates as a user of diffusers would, with embeddings at hand."""
    import torch

    sampling = made.size.sampling()
    prompt, negative = (
        torch.nn.functional.pad(rows, (0, 0, 0, sampling.max_sequence_length - len(rows)))
        for rows in (embedding["prompt_embeds"] for embedding in made.embeds)
    )
    count = made.size.candidates
    return made.stock(
        prompt_embeds=prompt.expand(count, -1, -1),
        negative_prompt_embeds=negative.expand(count, -1, -1),
        num_frames=sampling.num_frames,
        height=sampling.height,
        width=sampling.width,
        num_inference_steps=sampling.num_inference_steps,
        guidance_scale=sampling.guidance_scale,
        generator=[torch.Generator().manual_seed(seed) for seed in range(count)],
        output_type=output_type,
    ).frames


def _seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    raise SystemExit(command.run(main))
