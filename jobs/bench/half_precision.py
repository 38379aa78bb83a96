"""How far samples in half precision are from float32, for a model published in float16.

    python -m jobs.bench.half_precision --layers 4

A tiny CogVideoX with random weights, rounded to float16, samples a video with guidance in each
type, from the same noise; and as a learner that computes in bfloat16 does. Distances are relative
norms of final latents, as the canary's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jobs import command


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table."""
    parser = command.new_parser("python -m jobs.bench.half_precision", __doc__)
    command.add_option(parser, "--layers", 4, "blocks of the transformer")
    options = parser.parse_args(argv)
    print("| compared | distance |\n|---|---|")
    for name, distance in distances(options.layers).items():
        print(f"| {name} | {distance:.2g} |")
    return 0


def distances(num_layers: int) -> dict[str, float]:
    """Return what was compared -> its distance, for a transformer of so many blocks."""
    import torch

    from jobs.bench.real_configs import TINY
    from videorl.sampling.canary import difference

    TINY["cogvideox"] = {**TINY["cogvideox"], "num_layers": num_layers}
    exact, rounded, near = map(_sample, (torch.float32, torch.bfloat16, torch.float16))
    learner = _sample(torch.bfloat16, trainable=True)
    return {
        "bfloat16 with float32": difference(rounded, exact),
        "float16 with float32": difference(near, exact),
        "generator in bfloat16 with learner in bfloat16": difference(rounded, learner),
        "generator in float16 with learner in bfloat16": difference(near, learner),
    }


def _sample(dtype: Any, *, trainable: bool = False) -> Any:
    """Return latents of a model whose weights were rounded to float16 before anything else."""
    import torch

    from jobs.bench.real_models import Scale, policy
    from videorl.embedding import plain

    cpu = torch.device("cpu")
    torch.manual_seed(0)
    source = policy(Scale(True, cpu, torch.float32), "cogvideox").trainable_module()
    weights = dict(source.named_parameters())
    made = policy(Scale(True, cpu, dtype), "cogvideox", trainable=trainable)
    with torch.no_grad():
        for name, parameter in made.trainable_module().named_parameters():
            parameter.copy_(weights[name.replace(".reference.", ".policy.")].half())
    noise = torch.Generator().manual_seed(1)
    config: Any = made.trainable_module().config
    prompt, negative = torch.randn(2, 16, config.text_embed_dim, generator=noise)
    return made.sample(plain(prompt), plain(negative), [0])


if __name__ == "__main__":
    raise SystemExit(command.run(main))
