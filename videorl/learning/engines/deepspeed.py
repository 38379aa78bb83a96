"""DeepSpeed ZeRO 0 to 3 over torch.distributed (gloo on CPU, nccl on GPU)."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from videorl.config import OptimizerConfig
from videorl.learning.engines import fill_gradients, is_fused
from videorl.learning.engines.deepspeed_share import load_share, own_share
from videorl.learning.engines.deepspeed_state import full_state, load_full_state
from videorl.learning.engines.slices import Slice
from videorl.learning.engines.whole import whole_on_first
from videorl.learning.engines.whole_state import whole_share, whole_state


def _prepare_cpu() -> None:
    """Keep DeepSpeed from compiling its shared-memory op at start-up on CPU.

    That build takes tens of seconds and a compiler, and speeds up only ranks on one machine; gloo
    serves instead. DeepSpeed consults this table before it builds, and would otherwise fill it by
    trying out compilers.
    """
    import deepspeed.ops

    deepspeed.ops.__dict__["__compatible_ops__"] = {}


def _deepspeed_config(
    optimizer: OptimizerConfig, zero_stage: int, micro_batch_size: int
) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": optimizer.max_grad_norm,
        # DeepSpeed's own linear layer, at stage 3, rounds biases otherwise than generators do. It
        # would save weights from being held until the backward pass, as checkpointing does.
        "zero_optimization": {"stage": zero_stage, "memory_efficient_linear": False},
        "zero_allow_untested_optimizer": True,
    }


def _adamw(config: OptimizerConfig) -> dict[str, Any]:
    from deepspeed.accelerator import get_accelerator

    accelerator: Any = get_accelerator()
    params: dict[str, Any] = {
        "lr": config.learning_rate,
        "betas": list(config.betas),
        "weight_decay": config.weight_decay,
        # PyTorch's own kernels: no C++ build at start-up, and the local engine's numbers.
        "torch_adam": True,
    }
    if is_fused(config, accelerator.device_name()):
        params["fused"] = True
    return {"type": "AdamW", "params": params}


class DeepSpeedEngine:
    """A `deepspeed.initialize`d engine behind the `Engine` protocol."""

    def __init__(
        self,
        module: torch.nn.Module,
        config: OptimizerConfig,
        *,
        zero_stage: int,
        micro_batch_size: int,
    ) -> None:
        """Wrap `module`; torch.distributed must be initialised already."""
        import deepspeed

        if not torch.cuda.is_available():
            _prepare_cpu()
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        # DeepSpeed calls collectives by names that PyTorch has renamed.
        warnings.filterwarnings("ignore", "`torch.distributed", FutureWarning)
        deepspeed.init_distributed(dist_backend=torch.distributed.get_backend())
        self._named = {
            name: parameter
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        self._parameters = list(self._named.values())
        self._may_skip_weights = getattr(module, "may_skip_weights", False)
        self._zero_stage = zero_stage
        self._config = _deepspeed_config(config, zero_stage, micro_batch_size)
        self._cut(module)
        self._engine: Any
        self._engine, *_ = deepspeed.initialize(
            model=module,
            model_parameters=self._parameters,  # pyright: ignore[reportArgumentType]
            config={**self._config, "optimizer": _adamw(config)},
        )
        self._frozen: list[Any] = []
        self._cpu_group: ProcessGroup | None = None
        self._device = self._parameters[0].device
        sizes = [getattr(one, "ds_numel", one.numel()) for one in self._parameters]
        self.num_cut = sum(sizes) if zero_stage > 0 else 0
        self.rank = torch.distributed.get_rank()
        self.world_size = torch.distributed.get_world_size()

    def backward(self, loss: Tensor, *, is_last: bool) -> None:
        """Accumulate gradients; ranks average them once, at the last micro-batch."""
        if self._zero_stage > 0:
            # `engine.forward` would do this. A policy calls its module itself; without it ZeRO 3
            # overwrites the gradient of one micro-batch with the next.
            self._engine.optimizer.clear_backward_seen_flag()
        if is_last and self._may_skip_weights and self._zero_stage < 2:
            fill_gradients(self._parameters)  # ranks add up as many in the same order
        self._engine.set_gradient_accumulation_boundary(is_last)
        self._engine.backward(loss)

    def step(self, learning_rate: float) -> float:
        """Clip, update unless the gradient is not finite, clear it; return its norm before."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        if self._zero_stage > 0:
            self._engine.step()  # leaves out an update whose norm is not finite
            return float(self._engine.get_global_grad_norm())
        # Plain data parallelism measures no norm; gradients are whole and averaged here.
        norm = torch.nn.utils.get_total_norm(
            [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        )
        if torch.isfinite(norm):
            self._engine.step()
        else:
            self._engine.optimizer.zero_grad(set_to_none=True)
        return float(norm)

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """Return the element-wise sum of `values` over all ranks."""
        total = values.to(self._device)
        torch.distributed.all_reduce(total)
        return total.to(values.device)

    @contextmanager
    def gathered(self, parameters: Iterable[Tensor], *, write: bool) -> Iterator[bool]:
        """Gather ZeRO-3 shards on rank 0, in host memory; `write` gives its changes to all."""
        if self._zero_stage < 3:
            yield True
            return
        with whole_on_first([*parameters], write=write):
            yield self.rank == 0

    def share_out(self, module: torch.nn.Module) -> None:
        """Shard a frozen module with ZeRO 3; do nothing at other stages."""
        import deepspeed

        if self._zero_stage == 3:
            self._cut(module)
            # Without an optimizer, DeepSpeed adds only what gathers each layer for its forward.
            self._frozen.append(deepspeed.initialize(model=module, config=self._config)[0])

    def _cut(self, module: torch.nn.Module) -> None:
        """Bring a module to this rank's device, at ZeRO 3 only the rank's share of its weights.

        DeepSpeed itself would first bring it there whole.
        """
        import deepspeed
        from deepspeed.accelerator import get_accelerator

        if self._zero_stage == 3:
            deepspeed.zero.Init(module=module, config_dict_or_path=self._config)
            accelerator: Any = get_accelerator()
            for buffer in module.buffers():
                buffer.data = buffer.data.to(accelerator.current_device_name())

    def state(self) -> dict[str, Tensor]:
        """Return parameters and optimizer state, gathered from all ranks."""
        return full_state(self._engine, self._named)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` gave."""
        load_full_state(self._engine, self._named, state)

    def share(self) -> dict[str, Slice]:
        """Return this rank's slices; all of it at stage 0."""
        if self._zero_stage == 0:
            return whole_share(full_state(self._engine, self._named, on_all=True))
        return own_share(self._engine, self._named)

    def load_share(self, share: Mapping[str, Slice]) -> None:
        """Restore them."""
        if self._zero_stage == 0:
            self.load_state(whole_state(share, self._named))
        else:
            load_share(self._engine, self._named, share)

    def cpu_group(self) -> ProcessGroup | None:
        """Return the group for a thread beside training, made at the first call."""
        if self._cpu_group is None and self.world_size > 1:
            group = torch.distributed.new_group(backend="gloo")
            assert isinstance(group, ProcessGroup), "of all ranks, so of this one"
            self._cpu_group = group
        return self._cpu_group
