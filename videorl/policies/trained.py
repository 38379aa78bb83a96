"""What an optimizer changes in a model, beside the frozen reference it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from videorl.errors import ConfigError, WeightMismatchError
from videorl.protocols import Role


@dataclass(frozen=True, slots=True)
class TrainedWeights:
    """The live parameters of both roles, by their published names.

    Low-rank adapters and full fine-tuning differ only in how this object is built.
    """

    policy: Mapping[str, nn.Parameter]
    reference: Mapping[str, nn.Parameter]
    """Same names; empty in a process that only samples."""
    dtypes: Mapping[str, torch.dtype]
    """Type of every tensor as published, which is how a process that only samples holds it."""
    using: Callable[[Role], AbstractContextManager[nn.Module]]
    """Gives the module that computes with the weights of a role, for the length of a `with`."""
    has_own_base: bool = False
    """The role `base` is a module of its own, not this one without its adapters."""
    copies: Sequence[nn.Module] = ()
    """Frozen copies of the model."""
    times: tuple[float, float] = (0.0, 1.0)
    """The range of times at which they compute; less than all where a model has an expert of other
    times, which is not trained."""

    def networks(self) -> list[nn.Module]:
        """Return the modules that compute for any role, each once."""
        roles: list[Role] = ["policy"]
        if self.reference:
            roles.append("reference")
        if self.has_own_base:
            roles.append("base")
        found: dict[int, nn.Module] = {}
        for role in roles:
            with self.using(role) as module:
                found[id(module)] = module
        return list(found.values())

    def live(self, role: Role) -> list[nn.Parameter]:
        """Return the live parameters of the policy or the reference; the base has none."""
        return [*{"policy": self.policy, "reference": self.reference, "base": {}}[role].values()]

    def published(self) -> dict[str, Tensor]:
        """Return copies of the policy's tensors on the CPU, in their publication types."""
        return {
            name: parameter.detach().to("cpu", self.dtypes[name], copy=True)
            for name, parameter in self.policy.items()
        }

    def reference_copies(self) -> dict[str, Tensor]:
        """Return copies of the reference's tensors on the CPU, in the types they are held in."""
        self._need_reference()
        return {name: p.detach().to("cpu", copy=True) for name, p in self.reference.items()}

    def load(self, weights: Mapping[str, Tensor], role: Role) -> None:
        """Copy `weights` into the live parameters of `role`, all or nothing.

        Raises:
            WeightMismatchError: A name is missing or unknown, or a shape differs.
        """
        if role == "base":
            raise ConfigError("the base is frozen: nothing can be loaded into it")
        if role == "reference":
            self._need_reference()
        live = self.policy if role == "policy" else self.reference
        wrong = sorted(live.keys() ^ weights.keys()) or sorted(
            f"{name} {tuple(weights[name].shape)} instead of {tuple(parameter.shape)}"
            for name, parameter in live.items()
            if weights[name].shape != parameter.shape
        )
        if wrong:
            raise WeightMismatchError(
                f"{len(wrong)} of {len(live)} {role} tensors do not fit the loaded model, first: "
                f"{', '.join(wrong[:3])}; were they trained with another model or policy.lora?"
            )
        with torch.no_grad():
            for name, parameter in live.items():
                parameter.copy_(weights[name])

    def update_reference(self) -> None:
        """Make the reference equal to the policy, in place."""
        self._need_reference()
        with torch.no_grad():
            for name, parameter in self.reference.items():
                parameter.copy_(self.policy[name])

    def _need_reference(self) -> None:
        if not self.reference:
            raise ConfigError("this policy has no reference: load it with trainable=True")
