"""ZeRO by DeepSpeed (Rajbhandari et al. 2020, arXiv:1910.02054): stage 2 cuts gradients, masters and the
optimizer's state into pieces, stage 3 the parameters too. The engine owns the optimizer.
"""

import logging
import os
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad

from app.core.entities.trainer import Placement
from app.core.entities.training_config import TrainingConfig
from app.core.errors import Fault, Invalid
from app.implementations.training.batches import PackedBatch
from app.implementations.training.collective import first, for_first, from_first, spread
from app.implementations.training.method import Objective
from app.implementations.training.objective_module import ObjectiveModule
from app.implementations.training.optimizer import Masters, by_factor
from app.implementations.training.strategies.many import ManyProcesses

# What the training config says, so that no file may say otherwise.
OURS = frozenset(
    {
        *("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"),
        *("managed_gradient_accumulation", "optimizer", "scheduler", "gradient_clipping", "bf16", "fp16"),
    }
)


class DeepSpeed(ManyProcesses):
    """``options`` are those of config/deepspeed_zero2.json or config/deepspeed_zero3.json."""

    def join(
        self, config: TrainingConfig, placement: Placement, device: torch.device, options: Mapping[str, Any]
    ) -> None:
        if taken := OURS & options.keys():
            raise Invalid(
                f"config/deepspeed_zero{config.zero_stage}.json has keys that the training config decides: "
                "take them out",
                code="invalid_config",
                faults=[Fault(key, "not_allowed", "the training config decides this") for key in sorted(taken)],
            )
        self._library = _deepspeed(device)
        os.environ.setdefault("LOCAL_RANK", str(placement.local_rank))  # the engine looks there
        super().join(config, placement, device, options)
        self.keeps_whole = config.zero_stage == 2

    def wrap(self, objective: Objective, device: torch.device) -> nn.Module:
        """The engine is made with the optimizer, in ``optimizer``."""
        self._wrapped = _Wrapped(ObjectiveModule(objective).to(device))
        return self._wrapped

    def optimizer(
        self,
        parameters: Mapping[str, nn.Parameter],
        config: TrainingConfig,
        rate_factors: Mapping[str, float] | None = None,
    ) -> "EngineMasters":
        self._engine, *_ = self._library.initialize(
            model=self._wrapped.inside,
            model_parameters=by_factor(parameters, rate_factors),
            optimizer=lambda groups: torch.optim.AdamW(groups, weight_decay=config.weight_decay),
            dist_init_required=False,
            config=self._settings(next(iter(parameters.values())).dtype),
        )
        self._wrapped.inside = self._engine
        return EngineMasters(self._library, self._engine, parameters, self.device)

    def backward(self, loss: torch.Tensor, optimizer: "EngineMasters") -> None:
        self._engine.backward(loss * self.processes)  # the engine takes the mean over them

    def step(self, optimizer: "EngineMasters", learning_rate: float, max_grad_norm: float) -> float:
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate * group["factor"]
        self._engine.step()
        return float(self._engine.get_global_grad_norm())

    def _settings(self, dtype: torch.dtype) -> dict[str, Any]:
        return {
            "communication_data_type": "fp32",
            "data_types": {"grad_accum_dtype": "fp32"},
            **self.options,
            "train_micro_batch_size_per_gpu": self.config.batch_size,
            "managed_gradient_accumulation": False,  # the loop says when a step ends: an epoch's last may be short
            "gradient_clipping": self.config.max_grad_norm,
            # Else a gradient that is not a number would be reported as -1, and applied.
            "bf16": {"enabled": dtype == torch.bfloat16, "check_grad_overflow": True},
        }


class EngineMasters(Masters):
    """The engine's masters and Adam's state, whole to whoever asks."""

    def __init__(
        self, library: Any, engine: Any, parameters: Mapping[str, nn.Parameter], device: torch.device
    ) -> None:
        self.parameters = dict(parameters)
        self._utils, self._zero, self._engine, self._device = library.utils, library.zero, engine, device
        self._stage = engine.zero_optimization_stage()

    def whole(self) -> dict[str, torch.Tensor]:
        get = self._utils.safe_get_full_fp32_param
        return for_first({name: partial(get, p) for name, p in self.parameters.items()})

    def load_masters(self, weights: Mapping[str, torch.Tensor]) -> None:
        for name, parameter in self.parameters.items():
            tensor = from_first(weights.get(name), _shape(parameter), torch.float32, self._device)
            self._put(parameter, tensor)
            with self._zero.GatheredParameters([parameter], modifier_rank=0), torch.no_grad():
                parameter.copy_(tensor)

    def state_dict(self) -> dict[str, Any]:
        state, get = self._state, self._utils.safe_get_full_optimizer_state
        found = {
            key: for_first({name: partial(get, p, key) for name, p in self.parameters.items()})
            for key in state
            if key != "step"
        }
        return {"step": float(state["step"]), "state": found} if state else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        keys: list[str] = first(list(state.get("state", {})))
        if not keys:
            return
        optimizer = self._engine.optimizer
        for part in self._parts:
            optimizer.optimizer.state[part] = {key: torch.zeros_like(part) for key in keys}
        if self._stage == 2:  # which finds its way to the state at the first step only
            optimizer._lazy_init_hp_params_optimizer_state()
        kept = spread(
            state, self._device, lambda path, tensor: self._put(self.parameters[path[2]], tensor, path[1])
        )
        for part in self._parts:
            optimizer.optimizer.state[part]["step"] = torch.tensor(kept["step"])

    @property
    def _parts(self) -> list[torch.Tensor]:
        """This process's masters, each of many parameters' pieces end to end: what Adam steps."""
        optimizer = self._engine.optimizer
        parts: list[torch.Tensor] = (
            optimizer.single_partition_of_fp32_groups
            if self._stage == 2
            else optimizer.fp32_partitioned_groups_flat
        )
        return parts

    @property
    def _state(self) -> dict[str, torch.Tensor]:
        """Of the first part; {} before the first step."""
        state: dict[str, torch.Tensor] = self._engine.optimizer.optimizer.state.get(self._parts[0], {})
        return state

    def _put(self, parameter: Any, tensor: torch.Tensor, key: str | None = None) -> None:
        """Into the master, or the optimizer's state by ``key``: this process's piece of a whole tensor."""
        if self._stage == 2:
            if key is None:
                self._utils.safe_set_full_fp32_param(parameter, tensor)
            else:
                self._utils.safe_set_full_optimizer_state(parameter, tensor, key)
            return
        size = parameter.ds_tensor.numel()  # of a piece; the last may reach beyond the end
        filled = pad(tensor.flatten(), (0, size * self._engine.world_size - tensor.numel()))
        piece = filled.narrow(0, size * self._engine.global_rank, size)
        if key is None:
            self._utils.safe_set_local_fp32_param(parameter, piece)
        else:
            self._utils.safe_set_local_optimizer_state(parameter, piece, key)


class _Wrapped(nn.Module):
    """The objective, and the engine around it once there is one."""

    def __init__(self, objective: nn.Module) -> None:
        super().__init__()
        self.inside: Any = objective

    def forward(self, batch: PackedBatch) -> Any:
        return self.inside(batch)


def _shape(parameter: nn.Parameter) -> tuple[int, ...]:
    return tuple(getattr(parameter, "ds_shape", parameter.shape))  # stage 3 leaves an empty tensor in its place


def _deepspeed(device: torch.device) -> Any:
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    try:
        import deepspeed
    except ImportError:
        raise Invalid(
            "strategy deepspeed needs the package deepspeed, and it is not installed: "
            "pip install -c requirements.txt deepspeed",
            code="package_missing",
        ) from None
    deepspeed.utils.logger.setLevel(logging.WARNING)
    # Its all-reduce over shared memory would be compiled at the first start, where there is a compiler.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed
