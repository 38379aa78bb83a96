"""What a step of models of real sizes costs on the GPU of this machine: seconds, memory, share.

    python -m jobs.bench.gpu --out gpu.json
    python -m jobs.bench.gpu --tiny

Weights are random, in bfloat16, and text embeddings too: nothing is downloaded. It needs PyTorch,
diffusers, transformers, peft and omegaconf, but neither Ray nor DeepSpeed. Each measurement runs
once to warm up, and once more for its time and its peak of memory, weights included. The share is
that of the rate of large matrix products, measured in the same run. Accelerated rows count the
operations of the plain row of that name, so that shares compare times. Reward models are measured
without reading the video.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs import command
from jobs.bench.measuring import write_json

if TYPE_CHECKING:
    import torch

    from jobs.bench.real_models import Scale, Work

GIB = 2**30
FAMILIES = {"wan": "Wan-1.3B", "cogvideox": "CogVideoX-2B"}
_TOGETHER = {1: "one video at a time", 2: "both videos"}
_KERNELS = ("flash", "_flash_3", "sage", "_native_cudnn", "_native_efficient")
_SOLVER, _DECODING = "a few solver steps", "decoding"


@dataclass(frozen=True, slots=True)
class Measured:
    """One piece of work."""

    name: str
    seconds: float
    peak_gib: float
    """0 on a CPU."""
    teraflops: float
    """Floating-point operations of it, in 10^12."""
    share: float
    """Of the rate of matrix products."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure until the time is up; return 1 if a measurement failed."""
    parser = command.new_parser("python -m jobs.bench.gpu", __doc__)
    command.add_option(parser, "--minutes", 8.0, "when they are over, nothing further is begun")
    parser.add_argument("--tiny", action="store_true", help="tiny models on the CPU: a trial")
    text = "of torch.compile; default: inductor, with --tiny eager"
    parser.add_argument("--compiler", metavar="NAME", help=text)
    parser.add_argument("--out", type=Path, help="write the numbers to this file too")
    options = parser.parse_args(argv)
    if options.out:
        command.output_file(options.out)

    import torch

    from jobs.bench.real_models import Scale
    from videorl.errors import ConfigError

    if not options.tiny and not torch.cuda.is_available():
        raise ConfigError("there is no CUDA device here: --tiny tries everything out on the CPU")
    device = torch.device("cpu" if options.tiny else "cuda")
    # A CPU without bfloat16 is slow in it.
    dtype = torch.float32 if options.tiny else torch.bfloat16
    compiler = options.compiler or ("eager" if options.tiny else "inductor")
    scale = Scale(options.tiny, device, dtype, compiler)
    found = measure_all(scale, time.monotonic() + 60 * options.minutes)
    write_json(options.out, found)
    return int(bool(found["failed"]))


def measure_all(scale: Scale, deadline: float) -> dict[str, Any]:
    """Measure one thing after the other, and print a line for each.

    Args:
        scale: Of the models.
        deadline: By `time.monotonic`, after which nothing further is begun.
    """
    import torch

    rate = matrix_rate(scale.device, 64 if scale.is_tiny else 8192)
    name = torch.cuda.get_device_name() if scale.device.type == "cuda" else "CPU"
    print(f"{name}: {rate:.3g} TFLOP/s in matrix products of bfloat16")
    print(f"{'':<44}{'seconds':>9}{'GiB':>7}{'TFLOP':>9}{'share':>7}")
    rows, failed, skipped = list[Measured](), dict[str, str](), list[str]()
    for title, make in measurements(scale).items():
        if time.monotonic() > deadline:
            skipped.append(title)
            continue
        try:
            known = next((r.teraflops for r in rows if title.startswith(f"{r.name}, ")), None)
            rows.append(row := measure(title, make, scale.device, rate, known))
        except Exception as error:  # the others may still fit
            failed[title] = f"{type(error).__name__}: {error}"
            print(f"{title:<44}{failed[title]}", flush=True)
            continue
        print(
            f"{title:<44}{row.seconds:>9.3f}{row.peak_gib:>7.1f}{row.teraflops:>9.3g}"
            f"{row.share:>7.0%}",
            flush=True,
        )
    videos = seconds_per_video(scale, {row.name: row.seconds for row in rows})
    for title, seconds in videos.items():
        print(f"{title}: about {seconds:.1f} s")
    if skipped:
        print(f"no time was left for: {', '.join(skipped)}")
    plans = {} if scale.is_tiny else planned_gib(scale)
    for row in rows:
        if row.name in plans:
            ratio = row.peak_gib / plans[row.name]
            print(f"{row.name}: {ratio:.2f} of the {plans[row.name]:.1f} GiB of the plan")
    return {
        "device": name,
        "torch": torch.__version__,
        "matrix_teraflops_per_s": rate,
        "rows": [asdict(row) for row in rows],
        "seconds_per_video": videos,
        "planned_gib": plans,
        "failed": failed,
        "skipped": skipped,
    }


def measurements(scale: Scale) -> dict[str, Callable[[], Work]]:
    """Return title -> what loads the models and returns the work, the most wanted first."""
    from jobs.bench import real_models as real

    found: dict[str, Callable[[], Work]] = {}
    for family in FAMILIES:
        name = _title(scale, family)
        for videos, how in _TOGETHER.items():
            found[f"{name} DPO, {how}"] = partial(real.dpo_step, scale, family, videos)
        found[f"{name}, {_SOLVER}"] = partial(real.solver_steps, scale, family)
        found[f"{name}, {_DECODING}"] = partial(real.decode, scale, family)
    found["VideoReward, a clip of 5 s"] = partial(real.video_reward, scale)
    found["VideoScore, 16 frames"] = partial(real.video_score, scale)
    found["VisionReward, a clip of 5 s"] = partial(real.vision_reward, scale)
    return found | accelerated(scale)


def accelerated(scale: Scale) -> dict[str, Callable[[], Work]]:
    """Return the accelerators of sampling, and those that the learner has too."""
    from jobs.bench import real_models as real
    from videorl.policies.attention import installed

    compiled = {"policy.compile": scale.compiler}
    kernels = ["_native_math"] if scale.is_tiny else [n for n in installed() if n in _KERNELS]
    found: dict[str, Callable[[], Work]] = {}
    for family in FAMILIES:
        ways: dict[str, Mapping[str, object]] = {"compiled": compiled}
        if family == "wan":  # whose attention alone goes through diffusers' choice
            ways |= {name: {"policy.attention_backend": name} for name in kernels}
        few, both = (f"{_title(scale, family)}{part}" for part in (f", {_SOLVER}", " DPO"))
        for how, changes in ways.items():
            found[f"{few}, {how}"] = partial(real.solver_steps, scale, family, changes)
            title = f"{both}, {_TOGETHER[2]}, {how}"
            found[title] = partial(real.dpo_step, scale, family, 2, changes)
        merged = {"sampling.merge_lora": True}
        found[f"{few}, merged LoRA"] = partial(real.solver_steps, scale, family, merged)
        together = compiled | merged | {"sampling.guidance_in_one_batch": True}
        found[f"{few}, merged, one batch, compiled"] = partial(
            real.solver_steps, scale, family, together
        )
    return found


def planned_gib(scale: Scale) -> dict[str, float]:
    """Return what `videorl plan` says of the learner's peak, by the title of the measurement."""
    from videorl.planning.cards import Card
    from videorl.planning.models import read_configs
    from videorl.planning.roles import choose_learner

    unlimited = Card("any", memory_gib=1e6, tflops=1.0)
    found: dict[str, float] = {}
    for family in FAMILIES:
        recipe = scale.recipe(family)
        configs = read_configs(recipe.policy.path)
        for videos, how in _TOGETHER.items():
            recipe.learner = replace(recipe.learner, micro_batch_size=videos, zero_stage=0)
            peak_gib = choose_learner(recipe, configs, unlimited).memory.peak_gib
            found[f"{_title(scale, family)} DPO, {how}"] = peak_gib
    return found


def seconds_per_video(scale: Scale, seconds: Mapping[str, float]) -> dict[str, float]:
    """Return what sampling and decoding a video takes, from a few of the solver's steps."""
    from jobs.bench.real_models import NUM_STEPS

    found: dict[str, float] = {}
    for family in FAMILIES:
        name, steps = _title(scale, family), scale.recipe(family).sampling.num_inference_steps
        few, decoding = (seconds.get(f"{name}, {part}") for part in (_SOLVER, _DECODING))
        if few is not None and decoding is not None:
            found[f"{name}, a video of {steps} steps"] = few / NUM_STEPS * steps + decoding
    return found


def _title(scale: Scale, family: str) -> str:
    sampling = scale.recipe(family).sampling
    return f"{FAMILIES[family]} {sampling.num_frames}x{sampling.height}x{sampling.width}"


def measure(
    title: str,
    make: Callable[[], Work],
    device: torch.device,
    rate: float,
    teraflops: float | None = None,
) -> Measured:
    """Load, warm up while the operations are counted, then measure time and memory.

    Args:
        title: Of the row.
        make: Loads what works.
        device: Of the work.
        rate: Of matrix products, in 10^12 per second.
        teraflops: Of the work in 10^12, if they need not be counted: compiled ones cannot be.

    Raises:
        RuntimeError: Its blocks were to be compiled and were not.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from videorl.policies.compiling import num_failures

    gc.collect()
    is_gpu = device.type == "cuda"
    if is_gpu:
        torch.cuda.empty_cache()
    work, uncompiled = make(), num_failures()
    with FlopCounterMode(display=False) if teraflops is None else nullcontext() as counter:
        work()
    if num_failures() > uncompiled:
        raise RuntimeError("the blocks did not compile: see the log above")
    if is_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    work()
    if is_gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    peak_gib = torch.cuda.max_memory_allocated() / GIB if is_gpu else 0.0
    if counter is not None:
        teraflops = counter.get_total_flops() / 1e12
    assert teraflops is not None
    return Measured(title, seconds, peak_gib, teraflops, teraflops / seconds / rate)


def matrix_rate(device: torch.device, size: int) -> float:
    """Return the TFLOP/s of products of two square matrices of bfloat16."""
    import torch

    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    num = 20
    for _ in range(3):
        torch.mm(a, b)
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(num):
        torch.mm(a, b)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return num * 2 * size**3 / (time.perf_counter() - started) / 1e12


if __name__ == "__main__":
    raise SystemExit(command.run(main))
