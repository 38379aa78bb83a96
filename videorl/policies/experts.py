"""Two transformers that share the times of one noising process: Wan 2.2 A14B.

`transformer` computes at times at or above a boundary (the high noise), `transformer_2` below.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from videorl.policies.trained import TrainedWeights
from videorl.protocols import Role

FIRST, SECOND = "transformer", "transformer_2"
"""What diffusers calls the experts of high and of low noise."""
MODELS = (FIRST, SECOND)
TRAINED = {"both": MODELS, "high": (FIRST,), "low": (SECOND,)}
"""`policy.experts` -> those that have trained weights."""


class Experts(nn.Module):
    """Both transformers as one: each item of a batch goes to the expert of its time.

    The names of its parameters begin with the name of their expert.

    Args:
        transformer: Computes at times at or above the boundary.
        transformer_2: Computes below.
        boundary: In [0, 1], of the `num_steps` timesteps that the scheduler trains with.
    """

    may_skip_weights = True
    """A forward may leave out some of the weights, which engines must know."""

    def __init__(
        self, transformer: nn.Module, transformer_2: nn.Module, boundary: float, num_steps: int
    ) -> None:
        super().__init__()
        self.transformer: Any = transformer
        self.transformer_2: Any = transformer_2
        self.boundary = boundary
        self.num_steps = num_steps
        self.turns: Any = None
        """The `idle.Turns` that both take on the device, if they do."""

    def times(self, name: str) -> tuple[float, float]:
        """Return where the times of an expert begin, and where they end."""
        return (self.boundary, 1.0) if name == FIRST else (0.0, self.boundary)

    @property
    def config(self) -> Any:
        """Configuration of the first, which has the sizes of the second."""
        return self.transformer.config

    @property
    def device(self) -> torch.device:
        """The device of both."""
        return self.transformer.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of both."""
        return self.transformer.dtype

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether a trained one computes activations again in the backward pass."""
        return any(model.is_gradient_checkpointing for model in models_of(self).values())

    def forward(self, *, timestep: Tensor, **given: Any) -> Any:
        """Return what the stock pipeline's calls would, of items at times of either expert.

        Args:
            timestep: [B], in the scheduler's units.
            given: The transformer's other arguments; tensors have the axis B first.
        """
        is_high_B = (timestep >= self.boundary * self.num_steps).cpu()
        if is_high_B.all():
            return self.transformer(timestep=timestep, **given)
        if not is_high_B.any():
            return self.transformer_2(timestep=timestep, **given)
        outputs: list[Tensor] = []
        places = [is_high_B.nonzero()[:, 0], (~is_high_B).nonzero()[:, 0]]
        given = {**given, "timestep": timestep}
        for model, place in zip((self.transformer, self.transformer_2), places, strict=True):
            own = place.to(timestep.device)
            part = {k: v[own] if isinstance(v, Tensor) else v for k, v in given.items()}
            outputs.append(model(**{**part, "return_dict": False})[0])
        order = torch.cat(places).argsort().to(timestep.device)
        return (torch.cat(outputs)[order],)


def denoiser(pipeline: Any) -> Any:
    """Return what of a stock pipeline predicts: its transformer, or both as `Experts`."""
    if getattr(pipeline, SECOND, None) is None:
        return pipeline.transformer
    steps = pipeline.scheduler.config["num_train_timesteps"]
    boundary = pipeline.config.boundary_ratio
    return Experts(pipeline.transformer, pipeline.transformer_2, boundary, steps)


def models_of(module: nn.Module) -> dict[str, Any]:
    """Return the diffusers models of what predicts, by their names in the pipeline."""
    if isinstance(module, Experts):
        return {FIRST: module.transformer, SECOND: module.transformer_2}
    return {FIRST: module}


def by_model(module: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return trained weights by the model that they are of, under their names there."""
    if not isinstance(module, Experts):
        return {FIRST: dict(weights)}
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in weights.items():
        expert, _, inner = name.partition(".")
        found.setdefault(expert, {})[inner] = tensor
    return found


def untrained(model: nn.Module) -> TrainedWeights:
    """Return the weights of an expert that is not trained: none."""
    model.requires_grad_(False)
    return TrainedWeights({}, {}, {}, lambda role: nullcontext(model))


def joined(experts: Experts, parts: Mapping[str, TrainedWeights]) -> TrainedWeights:
    """Return the trained weights of both experts as those of one model.

    Args:
        experts: The live ones.
        parts: Of each expert by its name, `untrained` for one.
    """
    made = {(id(experts.transformer), id(experts.transformer_2)): experts}

    @contextmanager
    def using(role: Role) -> Iterator[nn.Module]:
        with ExitStack() as stack:
            first, second = (stack.enter_context(parts[name].using(role)) for name in MODELS)
            key = (id(first), id(second))
            if key not in made:
                made[key] = Experts(first, second, experts.boundary, experts.num_steps)
            yield made[key]

    ranges = [experts.times(name) for name, part in parts.items() if part.policy]
    return TrainedWeights(
        policy=_named(parts, "policy"),
        reference=_named(parts, "reference"),
        dtypes=_named(parts, "dtypes"),
        using=using,
        has_own_base=any(part.has_own_base for part in parts.values()),
        copies=[copy for part in parts.values() for copy in part.copies],
        times=(min(start for start, _ in ranges), max(end for _, end in ranges)),
    )


def _named(parts: Mapping[str, TrainedWeights], field: str) -> dict[str, Any]:
    return {
        f"{expert}.{name}": value
        for expert, part in parts.items()
        for name, value in getattr(part, field).items()
    }
