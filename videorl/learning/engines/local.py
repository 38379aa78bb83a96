"""AdamW in one process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from videorl.config import OptimizerConfig
from videorl.learning.engines import fill_gradients, is_fused
from videorl.learning.engines.slices import Slice
from videorl.learning.engines.whole_state import MOMENTS, moment_name, whole_share, whole_state


class LocalEngine:
    """Plain PyTorch: the engine of tests and of runs without a cluster."""

    rank = 0
    world_size = 1
    num_cut = 0

    def __init__(self, module: torch.nn.Module, config: OptimizerConfig) -> None:
        """Hold the parameters of `module` that require gradients."""
        self._named = {
            name: parameter
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        self._parameters = list(self._named.values())
        self._max_grad_norm = config.max_grad_norm
        self._optimizer = torch.optim.AdamW(
            self._parameters,
            lr=config.learning_rate,
            betas=(config.betas[0], config.betas[1]),
            weight_decay=config.weight_decay,
            fused=is_fused(config, self._parameters[0].device.type) or None,
        )

    def backward(self, loss: Tensor, *, is_last: bool) -> None:
        """Accumulate gradients."""
        loss.backward()
        if is_last:
            fill_gradients(self._parameters)

    def step(self, learning_rate: float) -> float:
        """Clip, update unless the gradient is not finite, clear it; return its norm before."""
        norm = self._clip()
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        if torch.isfinite(norm):
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return float(norm)

    def _clip(self) -> Tensor:
        """Clip as DeepSpeed's ZeRO 1 and 2 do, rounding included; return the norm before.

        PyTorch's `clip_grad_norm_` divides in another order, and its last bit would be all that
        tells a run in one process from one on a cluster.
        """
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        norms = torch.stack([torch.linalg.vector_norm(gradient.double()) for gradient in gradients])
        norm = norms.square().sum().float().sqrt()
        excess = ((norm + 1e-6) / self._max_grad_norm).clamp(min=1.0)
        for gradient in gradients:
            gradient.mul_(1.0 / excess)
        return norm

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """Return `values`: there is one rank."""
        return values

    def gathered(
        self, parameters: Iterable[Tensor], *, write: bool
    ) -> AbstractContextManager[bool]:
        """Do nothing: parameters are whole here."""
        return nullcontext(True)

    def share_out(self, module: torch.nn.Module) -> None:
        """Do nothing: there is one rank."""

    def state(self) -> dict[str, Tensor]:
        """Return parameters, AdamW's moments and its step count."""
        held = self._optimizer.state
        step = next((moments["step"] for moments in held.values()), torch.zeros(()))
        found = {"step": step.to("cpu", copy=True)}
        for name, parameter in self._named.items():
            found[name] = parameter.detach().to("cpu", copy=True)
            for moment in MOMENTS if held else ():
                value: Tensor = held[parameter][moment]
                found[moment_name(name, moment)] = value.to("cpu", copy=True)
        return found

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` gave."""
        has_moments = float(state["step"]) > 0
        is_fused = bool(self._optimizer.defaults["fused"])
        for name, parameter in self._named.items():
            parameter.copy_(state[name])
            if has_moments:
                self._optimizer.state[parameter] = {
                    # The fused kernel counts where it computes.
                    "step": state["step"].to(parameter.device if is_fused else "cpu", copy=True),
                    **{
                        moment: state[moment_name(name, moment)].to(parameter.device, copy=True)
                        for moment in MOMENTS
                    },
                }

    def share(self) -> dict[str, Slice]:
        """Return all of it, flattened."""
        return whole_share(self.state())

    def load_share(self, share: Mapping[str, Slice]) -> None:
        """Restore it."""
        self.load_state(whole_state(share, self._named))

    def cpu_group(self) -> None:
        """Return nothing: there is one rank."""
