"""A small interface to DeepSpeed: build it, step it, and read or write its state by parameter name.

The trained part is small (0.3 B of 4 B parameters), so that its whole state fits into the memory of one worker. A state
by parameter name does not depend on the number of workers or the ZeRO stage: a training can resume with others (P5).
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
# The attributes that DeepSpeed's dynamic loss scale depends on, besides its constants.
_SCALER = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")


class Engine:
    """A model with its optimizer, sharded at the configured ZeRO stage.

    Args:
        model: the model on CPU; the parameters that require gradients are trained. In half precision, a model with
            several precisions keeps them, and a model with one precision is cast.
        group_of: returns the parameter group of a parameter's name.
        group_names: the parameter groups that settings may name.
        loop: precision, ZeRO stage and offload.
        optimizer: AdamW's settings.
        context: rank, device and number of workers.
        micro_batches: number of micro-batches of a step.

    Attributes:
        module: DeepSpeed's engine, which is called like the model; `module.module` is the model.
        trainable: the trained parameters by name.

    Raises:
        ValueError: the settings name an unknown parameter group, or nothing is trained.
        UserError: the device does not support the precision.
    """

    def __init__(
        self,
        model: nn.Module,
        group_of: Callable[[str], str],
        group_names: Sequence[str],
        loop: LoopConfig,
        optimizer: OptimizerConfig,
        context: Context,
        micro_batches: int,
    ) -> None:
        require_precision(loop, context.device)
        model = model.to(context.device)
        # Kernels round differently at other memory alignments. Start weights and checkpoints are aligned differently in
        # their files, so without this a resumed training would not repeat the losses exactly.
        align_weights(model)
        deepspeed = import_deepspeed()
        self.names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        groups = parameter_groups(model, group_of, group_names, optimizer)
        self.rates = [group.pop("rate") for group in groups]
        self.groups = [group.pop("label") for group in groups]
        # Each step sets the rates. Until then they are 0, because some of DeepSpeed's optimizers step when they are
        # built.
        adamw = torch.optim.AdamW(
            groups, lr=0.0, betas=optimizer.betas, eps=optimizer.epsilon, fused=context.device.type == "cuda" or None
        )
        # At INFO, DeepSpeed logs its whole configuration several times.
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
        """Multiply the configured learning rate of every group by `factor`; return the products by group."""
        current = {}
        for group, rate, label in zip(self._param_groups(), self.rates, self.groups, strict=True):
            group["lr"] = rate * factor
            current[label] = rate * factor
        return current

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a micro-batch's loss."""
        self.module.backward(loss)

    def step(self, last: bool) -> None:
        """End a micro-batch. After the last one of a step, clip the gradients and update the weights."""
        if last and self._wrapped() is None:
            gradients = [value.grad for value in self.trainable.values() if value.grad is not None]
            # Clipped here and not by DeepSpeed, which would compute the norm a second time and not return it.
            self._norm = torch.nn.utils.get_total_norm(gradients)
            if self._clip_norm:
                torch.nn.utils.clip_grads_with_norm_(self.trainable.values(), self._clip_norm, self._norm)
        self.module.step()
        if last and self._wrapped() is not None:
            self._norm = self.module.get_global_grad_norm()
            if getattr(self._wrapped(), "overflow", False):
                self._norm = math.inf  # at stage 3, DeepSpeed still has the norm of the previous step

    @property
    def gradient_norm(self) -> float | None:
        """The global norm of the last step's gradient before clipping, where DeepSpeed computed one."""
        return None if self._norm is None else float(self._norm)

    @property
    def updates(self) -> int:
        """Number of AdamW's updates so far."""
        return int(self._adamw().state[self._master_tensors()[0]]["step"])

    @property
    def loss_scale(self) -> dict[str, float] | None:
        """fp16's loss scale with the counters that change it; None in other precisions."""
        scaler = self._scaler()
        return None if scaler is None else {name: getattr(scaler, name) for name in _SCALER}

    @property
    def diverged(self) -> bool:
        """Whether the last gradient was not finite, for another reason than a loss scale that can still be lowered."""
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
        """Return DeepSpeed's wrapper around AdamW; None at stage 0 in fp32, which has no wrapper."""
        optimizer = self.module.optimizer
        return optimizer if not isinstance(optimizer, torch.optim.AdamW) else None

    def _adamw(self) -> torch.optim.AdamW:
        wrapper = self._wrapped()
        return self.module.optimizer if wrapper is None else wrapper.optimizer

    def _master_tensors(self) -> list[Tensor]:
        """Return the tensors that AdamW updates: the parameters, or this worker's flat fp32 parts of them."""
        wrapper = self._wrapped()
        if wrapper is not None and self._zero3:
            return list(wrapper.fp32_partitioned_groups_flat)
        return [tensor for group in self._adamw().param_groups for tensor in group["params"]]

    def _set_step(self, step: int) -> None:
        """Create AdamW's state as after `step` updates, and link DeepSpeed's views to it."""
        adamw = self._adamw()
        for tensor in self._master_tensors():
            state = adamw.state[tensor]
            for moment in MOMENTS:
                if moment not in state:
                    state[moment] = torch.zeros_like(tensor)
            device = tensor.device if adamw.defaults.get("fused") else torch.device("cpu")
            state["step"] = torch.tensor(float(step), dtype=torch.float32, device=device)
        wrapper = self._wrapped()
        if wrapper is not None and hasattr(wrapper, "_lazy_init_hp_params_optimizer_state"):
            wrapper._hp_optimizer_states_linked = False  # DeepSpeed may have linked them before the state existed
            wrapper._lazy_init_hp_params_optimizer_state()

    def weights(self) -> dict[str, Tensor]:
        """Return the trained weights in fp32 on CPU. Every worker must call this; only the main one gets tensors."""
        return self._assemble(None)

    def moments(self) -> dict[str, Tensor]:
        """Return AdamW's moments, `NAME.exp_avg` and `NAME.exp_avg_sq`, in fp32 on CPU. Every worker must call this."""
        moments = {}
        for moment in MOMENTS:
            moments.update({f"{name}.{moment}": value for name, value in self._assemble(moment).items()})
        return moments

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
                # A copy, because the training changes the weights while the checkpoint is written.
                assembled[name] = value.detach().to("cpu", torch.float32, copy=True).reshape(_shape(parameter))
        return assembled

    def restore(
        self,
        weights: Mapping[str, Tensor],
        moments: Mapping[str, Tensor],
        updates: int,
        loss_scale: Mapping[str, float] | None = None,
    ) -> None:
        """Restore weights and moments of a checkpoint. The model must have been built with these weights.

        Args:
            weights: fp32 tensors by parameter name, for the fp32 masters.
            moments: by `NAME.exp_avg` and `NAME.exp_avg_sq`.
            updates: number of AdamW's updates so far.
            loss_scale: the value of `loss_scale` at the checkpoint; None if its precision was not fp16.
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
        """Temporarily switch the model to evaluation mode, without gradients."""
        self.module.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.module.train()


def parameter_groups(
    model: nn.Module, group_of: Callable[[str], str], group_names: Sequence[str], config: OptimizerConfig
) -> list[dict[str, Any]]:
    """Return AdamW's groups: for each named group, one with weight decay and one without.

    Returns:
        Dicts with `params`, `weight_decay`, `rate` (the learning rate) and `label` (the group's name).

    Raises:
        ValueError: nothing is trained, or a setting names an unknown group.
    """
    named: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            named.setdefault((group_of(name), parameter.ndim >= 2), []).append(parameter)
    trained = {group for group, _ in named}
    if not trained:
        raise ValueError("Nothing is trained: no parameter requires a gradient.")
    mentioned = {*config.learning_rate_scale, *config.weight_decay_of}
    if unknown := mentioned - set(group_names):
        raise ValueError(
            f"optimizer.learning_rate_scale or weight_decay_of has unknown parameter groups {sorted(unknown)}; choose "
            f"from {', '.join(group_names)}."
        )
    if idle := mentioned - trained:
        log.warning(
            "optimizer settings of the groups %s have no effect, because these groups are not trained", sorted(idle)
        )
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
    """Return DeepSpeed's configuration. The loop scales the loss, so that the micro-batch size here has no effect.

    Args:
        loop: precision, ZeRO stage, offload.
        optimizer: the clipping norm.
        micro_batches: number of micro-batches of a step.
        elements: number of trained elements, which limits the reduce bucket; DeepSpeed's default is 500 million.
    """
    stage = effective_stage(loop)
    zero: dict[str, Any] = {"stage": stage, "reduce_bucket_size": min(BUCKET, elements)}
    if loop.offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        "train_micro_batch_size_per_gpu": loop.micro_batch_size or 1,
        "gradient_accumulation_steps": micro_batches,
        # Without ZeRO, `Engine.step` clips.
        "gradient_clipping": optimizer.clip_norm if stage else 0.0,
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,  # offloading uses torch's AdamW, too: DeepSpeed's needs a compiler
        "bf16": {"enabled": loop.precision == "bf16"},
        "fp16": {"enabled": loop.precision == "fp16", "loss_scale": 0, "initial_scale_power": 16},
        "steps_per_print": 10**12,
        "wall_clock_breakdown": False,
    }


@contextlib.contextmanager
def _kept_precision(model: nn.Module) -> Iterator[None]:
    """Prevent DeepSpeed from casting a model with several precisions; DeepSpeed has no setting for it."""
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
    """Import DeepSpeed; without a GPU, keep it from compiling its shared-memory communication (99 s, 69 MB a run)."""
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    import deepspeed

    if not torch.cuda.is_available():
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def _shape(parameter: nn.Parameter) -> torch.Size:
    """Return the whole shape of a parameter: ZeRO 3 leaves an empty tensor and stores the shape in `ds_shape`."""
    return getattr(parameter, "ds_shape", parameter.shape)
