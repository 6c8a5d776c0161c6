"""DeepSpeed behind a small front: build it, step it, and read or write its state by parameter name.

What is trained is small (0.3 B of 4 B parameters), so that its state can be assembled whole. A state by name knows
neither the number of workers nor the ZeRO stage; a training resumes under other ones (P5).
"""

import contextlib
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.alignment import align_weights
from pipelines.training.config import LoopConfig, OptimizerConfig
from pipelines.training.context import Context
from pipelines.training.memory import BUCKET
from pipelines.training.precision import effective_stage, require_precision

log = logging.getLogger("lion.training")
MOMENTS = ("exp_avg", "exp_avg_sq")
# What DeepSpeed's dynamic loss scale follows from, besides its constants.
_SCALER = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")


class Engine:
    """A model with its optimizer, sharded as the configuration says.

    Args:
        model: on CPU; the parameters that require gradients are trained. In half precision one that comes in several
            precisions keeps them; another is cast.
        group_of: the parameter group of a name.
        known_groups: the groups that a setting may name.
        loop: precision, ZeRO stage and offload.
        optimizer: AdamW's settings.
        context: this worker's place.
        micro_batches: micro-batches of a step.

    Attributes:
        module: DeepSpeed's engine; call it as the model is called.
        trainable: what is trained, by name.
    """

    def __init__(
        self,
        model: nn.Module,
        group_of: Callable[[str], str],
        known_groups: Sequence[str],
        loop: LoopConfig,
        optimizer: OptimizerConfig,
        context: Context,
        micro_batches: int,
    ) -> None:
        require_precision(loop, context.device)
        model = model.to(context.device)
        # The start's weights lie elsewhere in their file than a checkpoint's, and equal losses need equal addresses.
        align_weights(model)
        deepspeed = import_deepspeed()
        self.names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        groups = parameter_groups(model, group_of, known_groups, optimizer)
        self.rates = [group.pop("rate") for group in groups]
        self.groups = [group.pop("label") for group in groups]
        # The rate is set before each step. Until then it is 0: some of DeepSpeed's optimizers take a step when built.
        adamw = torch.optim.AdamW(
            groups, lr=0.0, betas=optimizer.betas, eps=optimizer.epsilon, fused=context.device.type == "cuda" or None
        )
        # DeepSpeed logs a page about itself at INFO, several times over.
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        elements = sum(parameter.numel() for group in groups for parameter in group["params"])
        with _kept_precision(model):
            self.module, _, _, _ = deepspeed.initialize(
                model=model,
                optimizer=adamw,
                config=deepspeed_config(loop, optimizer, micro_batches, elements),
                dist_init_required=False,
            )
        self.context = context
        self._zero3 = loop.zero_stage == 3
        self._norm: Any = None
        parameters = dict(self.module.module.named_parameters())
        self.trainable: dict[str, nn.Parameter] = {name: parameters[name] for name in self.names}
        self._clip_norm = optimizer.clip_norm
        self._set_step(0)

    def set_rates(self, factor: float) -> dict[str, float]:
        """Set the learning rate of every group to its own times `factor` and return them by group."""
        current = {}
        for group, rate, label in zip(self._param_groups(), self.rates, self.groups, strict=True):
            group["lr"] = rate * factor
            current[label] = rate * factor
        return current

    def backward(self, loss: Tensor) -> None:
        """Add a micro-batch's gradients."""
        self.module.backward(loss)

    def step(self, last: bool) -> None:
        """End a micro-batch; after the last one of a step the optimizer steps and `gradient_norm` is the step's."""
        if last and self._wrapped() is None:
            gradients = [value.grad for value in self.trainable.values() if value.grad is not None]
            self._norm = torch.nn.utils.get_total_norm(gradients)
            if self._clip_norm:
                torch.nn.utils.clip_grads_with_norm_(self.trainable.values(), self._clip_norm, self._norm)
        self.module.step()
        if last and self._wrapped() is not None:
            self._norm = self.module.get_global_grad_norm()
            if getattr(self._wrapped(), "overflow", False):
                self._norm = math.inf  # ZeRO 3 would leave the norm of the step before

    @property
    def gradient_norm(self) -> float | None:
        """The global norm of the last step's gradient before clipping, where DeepSpeed computed one."""
        return None if self._norm is None else float(self._norm)

    @property
    def updates(self) -> int:
        """AdamW's steps so far."""
        return int(self._adamw().state[self._master_tensors()[0]]["step"])

    @property
    def loss_scale(self) -> dict[str, float] | None:
        """fp16's loss scale and what it follows from; None in other precisions."""
        scaler = self._scaler()
        return None if scaler is None else {name: getattr(scaler, name) for name in _SCALER}

    @property
    def diverged(self) -> bool:
        """Whether the last gradient was no number, and not for want of a smaller loss scale."""
        if self._norm is None or math.isfinite(self._norm):
            return False
        scaler = self._scaler()
        return scaler is None or (scaler.cur_scale <= scaler.min_scale and scaler.cur_hysteresis <= 1)

    def _scaler(self) -> Any | None:
        scaler = getattr(self._wrapped(), "loss_scaler", None)
        return scaler if getattr(scaler, "dynamic", False) else None

    def _param_groups(self) -> list[dict[str, Any]]:
        return self.module.optimizer.param_groups

    def _wrapped(self) -> Any | None:
        """DeepSpeed's wrapper around AdamW; None where there is none (stage 0 in fp32)."""
        optimizer = self.module.optimizer
        return optimizer if not isinstance(optimizer, torch.optim.AdamW) else None

    def _adamw(self) -> torch.optim.AdamW:
        wrapper = self._wrapped()
        return self.module.optimizer if wrapper is None else wrapper.optimizer

    def _master_tensors(self) -> list[Tensor]:
        """What AdamW itself steps: the parameters, or this worker's flat fp32 parts of them."""
        wrapper = self._wrapped()
        if wrapper is not None and self._zero3:
            return list(wrapper.fp32_partitioned_groups_flat)
        return [tensor for group in self._adamw().param_groups for tensor in group["params"]]

    def _set_step(self, step: int) -> None:
        """Make AdamW's state exist, as of `step` steps, and DeepSpeed's views of it point at it."""
        adamw = self._adamw()
        for tensor in self._master_tensors():
            state = adamw.state[tensor]
            for moment in MOMENTS:
                if moment not in state:
                    state[moment] = torch.zeros_like(tensor)
            on = tensor.device if adamw.defaults.get("fused") else torch.device("cpu")
            state["step"] = torch.tensor(float(step), dtype=torch.float32, device=on)
        wrapper = self._wrapped()
        if wrapper is not None and hasattr(wrapper, "_lazy_init_hp_params_optimizer_state"):
            wrapper._hp_optimizer_states_linked = False  # they may have been linked before the state existed
            wrapper._lazy_init_hp_params_optimizer_state()

    def weights(self) -> dict[str, Tensor]:
        """Return the trained weights in fp32 on CPU. Every worker calls it; the main one gets them."""
        return self._assemble(None)

    def moments(self) -> dict[str, Tensor]:
        """AdamW's moments as `NAME.exp_avg` and `NAME.exp_avg_sq`, in fp32 on CPU. Every worker calls it."""
        found = {}
        for moment in MOMENTS:
            found.update({f"{name}.{moment}": value for name, value in self._assemble(moment).items()})
        return found

    def _assemble(self, moment: str | None) -> dict[str, Tensor]:
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        assembled = {}
        for name, parameter in self.trainable.items():
            if self._wrapped() is None:
                value = parameter.data if moment is None else self._adamw().state[parameter][moment]
            elif moment is None:
                value = safe_get_full_fp32_param(parameter)
            else:
                value = safe_get_full_optimizer_state(parameter, moment)
            if self.context.is_main:
                # A copy: the training goes on while the checkpoint is written.
                assembled[name] = value.detach().to("cpu", torch.float32, copy=True).reshape(_shape(parameter))
        return assembled

    def restore(
        self,
        weights: Mapping[str, Tensor],
        moments: Mapping[str, Tensor],
        updates: int,
        loss_scale: Mapping[str, float] | None = None,
    ) -> None:
        """Put back what `weights` and `moments` gave. The model must have been built with these weights.

        Args:
            weights: by name. They reach the fp32 masters here; the module has them from when it was built.
            moments: by `NAME.exp_avg` and `NAME.exp_avg_sq`.
            updates: AdamW's steps so far.
            loss_scale: what the property of that name gave; a training of another precision has none.
        """
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        self._set_step(updates)
        scaler = self._scaler()
        if scaler is not None and loss_scale is not None:
            for name in _SCALER:
                setattr(scaler, name, loss_scale[name])
        for name, parameter in self.trainable.items():
            device = self.context.device
            values = {moment: moments[f"{name}.{moment}"].to(device) for moment in MOMENTS}
            if self._wrapped() is None:
                for moment, value in values.items():
                    self._adamw().state[parameter][moment].copy_(value)
                continue
            safe_set_full_fp32_param(parameter, weights[name].to(device))
            for moment, value in values.items():
                safe_set_full_optimizer_state(parameter, value, moment)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode without gradients."""
        self.module.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.module.train()


def parameter_groups(
    model: nn.Module, group_of: Callable[[str], str], known_groups: Sequence[str], config: OptimizerConfig
) -> list[dict[str, Any]]:
    """AdamW's groups: one per named group, and one more for its parameters without weight decay.

    Returns:
        Dicts with `params`, `weight_decay`, `rate` (the learning rate) and `label` (the group's name).

    Raises:
        ValueError: nothing is trained, or a setting names a group that there is not.
    """
    named: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            named.setdefault((group_of(name), parameter.ndim >= 2), []).append(parameter)
    trained = {group for group, _ in named}
    if not trained:
        raise ValueError("Nothing is trained: no parameter requires a gradient.")
    mentioned = {*config.learning_rate_scale, *config.weight_decay_of}
    if unknown := mentioned - set(known_groups):
        raise ValueError(f"There is no parameter group {sorted(unknown)}; choose of {', '.join(known_groups)}.")
    if idle := mentioned - trained:
        log.warning("settings of %s have no effect: these groups are not trained", sorted(idle))
    return [
        {
            "params": parameters,
            "weight_decay": config.weight_decay_of.get(group, config.weight_decay) if decays else 0.0,
            "rate": config.learning_rate * config.learning_rate_scale.get(group, 1.0),
            "label": group,
        }
        for (group, decays), parameters in sorted(named.items())
    ]


def deepspeed_config(loop: LoopConfig, optimizer: OptimizerConfig, micro_batches: int, elements: int) -> dict[str, Any]:
    """DeepSpeed's own configuration. The loop scales the loss, so that the micro-batch size is only a label here.

    Args:
        loop: precision, ZeRO stage, offload.
        optimizer: the clipping norm.
        micro_batches: of a step.
        elements: that are trained; DeepSpeed would set memory aside for 500 million.
    """
    stage = effective_stage(loop)
    zero: dict[str, Any] = {"stage": stage, "reduce_bucket_size": min(BUCKET, elements)}
    if loop.offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        "train_micro_batch_size_per_gpu": loop.micro_batch_size or 1,
        "gradient_accumulation_steps": micro_batches,
        # Without ZeRO it is clipped here: DeepSpeed would compute the norm once more, and tell nobody.
        "gradient_clipping": optimizer.clip_norm if stage else 0.0,
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,  # the offloaded optimizer is torch's, too: DeepSpeed's own is compiled
        "bf16": {"enabled": loop.precision == "bf16"},
        "fp16": {"enabled": loop.precision == "fp16", "loss_scale": 0, "initial_scale_power": 16},
        "steps_per_print": 10**12,
        "wall_clock_breakdown": False,
    }


@contextlib.contextmanager
def _kept_precision(model: nn.Module) -> Iterator[None]:
    """Keep DeepSpeed from casting a model that has several precisions; it has no setting for that."""
    from deepspeed.runtime.engine import DeepSpeedEngine

    if len({parameter.dtype for parameter in model.parameters()}) == 1:
        yield
        return
    cast = DeepSpeedEngine._cast_module_mixed_precision
    DeepSpeedEngine._cast_module_mixed_precision = lambda *_, **__: None
    try:
        yield
    finally:
        DeepSpeedEngine._cast_module_mixed_precision = cast


def import_deepspeed() -> Any:
    """DeepSpeed, told on machines without a GPU not to compile its shared-memory communication (99 s, 69 MB a run)."""
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    import deepspeed

    if not torch.cuda.is_available():
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def _shape(parameter: nn.Parameter) -> torch.Size:
    """Return the whole shape, which ZeRO-3 keeps beside the empty shell that it leaves of a parameter."""
    return getattr(parameter, "ds_shape", parameter.shape)
