"""T5 with LION's adapters: a parallel bottleneck per level in every feed-forward layer, weighed by a router."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import T5Config, T5ForConditionalGeneration
from transformers import initialization as init
from transformers.models.t5.modeling_t5 import T5Block, T5LayerFF, T5Stack

from models.lion.configuration import LEVELS

ROUTED = len(LEVELS)


class LionAdapter(nn.Module):
    """Σ_k G_k^t ⊙ H_k(h): the adapters of one feed-forward layer and their router (arXiv 2311.11860, section 3.2).

    Each H_k is down, ReLU, up and a learned scale; G_k is (levels, d), chosen by the sample's own level t. All
    adapters run as one product down and one up: the gates and scales are folded into the up weights, and a sample's
    bottleneck is multiplied by the columns of its level only.

    The parameters stay separate for each level, so that each can be frozen, and belong to this module itself, so that
    an engine that gathers a module's parameters around its forward (ZeRO-3) gathers them.

    Args:
        levels: Levels that have an adapter, in the order of `LEVELS`. A single adapter has no router.
        width: d, of the residual stream.
        bottleneck: Inner width of each adapter.
    """

    def __init__(self, levels: Sequence[str], width: int, bottleneck: int) -> None:
        super().__init__()
        self.levels = tuple(levels)
        self.width = width
        for level in self.levels:
            self.register_parameter(f"{level}_down_weight", nn.Parameter(torch.empty(bottleneck, width)))
            self.register_parameter(f"{level}_down_bias", nn.Parameter(torch.empty(bottleneck)))
            self.register_parameter(f"{level}_up_weight", nn.Parameter(torch.empty(width, bottleneck)))
            self.register_parameter(f"{level}_up_bias", nn.Parameter(torch.empty(width)))
            self.register_parameter(f"{level}_scale", nn.Parameter(torch.empty(1)))
            if self.routed:
                self.register_parameter(f"{level}_router", nn.Parameter(torch.empty(ROUTED, width)))
        self._folded: tuple[Tensor, Tensor, Tensor, Tensor] | None = None
        self.reset_parameters()

    @property
    def routed(self) -> bool:
        """Whether a router weighs several adapters."""
        return len(self.levels) > 1

    def reset_parameters(self) -> None:
        """Start as the identity: up at zero, scale 1, the router a choice of the sample's own adapter."""
        for level in self.levels:
            init.kaiming_uniform_(self._of(level, "down_weight"), a=5**0.5)
            init.zeros_(self._of(level, "down_bias"))
            init.zeros_(self._of(level, "up_weight"))
            init.zeros_(self._of(level, "up_bias"))
            init.ones_(self._of(level, "scale"))
            if self.routed:
                init.copy_(self._of(level, "router"), self._own_rows(level))

    @torch.no_grad()
    def reset_router(self) -> None:
        """Route region samples through the region adapter alone and image samples through the image adapter alone."""
        for level in self.levels if self.routed else ():
            # Not through `init`, which leaves loaded parameters as they are.
            self._of(level, "router").copy_(self._own_rows(level))

    def _own_rows(self, level: str) -> Tensor:
        own = torch.zeros(ROUTED, self.width)
        own[LEVELS.index(level)] = 1
        return own

    def forward(self, hidden_states: Tensor, levels: Tensor | None) -> Tensor:
        """Return the sum of the adapters, which is added to the residual stream.

        Args:
            hidden_states: The residual stream before its layer norm (B, L, d).
            levels: Each sample's row of the router (B,), int64; not read without a router.

        Returns:
            (B, L, d), in the precision of ``hidden_states``.
        """
        down_weight, down_bias, up_weight, up_bias = self._folded or self._fold(hidden_states.dtype)
        inner = functional.relu(functional.linear(hidden_states, down_weight, down_bias))
        if not self.routed:
            return functional.linear(inner, up_weight, up_bias)
        if levels is None:
            raise ValueError("This LION has a router and needs levels: (B,) int64, 0 for region and 1 for image.")
        own = functional.one_hot(levels, ROUTED).to(inner.dtype)
        inner = (own[:, None, :, None] * inner[:, :, None, :]).flatten(2)
        return functional.linear(inner, up_weight) + (own @ up_bias)[:, None]

    def _fold(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return down weight (K·r, d), down bias (K·r,), up weight (d, T·K·r) and up bias (T, d), all folded."""
        down_weight = torch.cat([self._of(level, "down_weight") for level in self.levels])
        down_bias = torch.cat([self._of(level, "down_bias") for level in self.levels])
        weights = [self._of(level, "scale") * self._of(level, "up_weight") for level in self.levels]
        biases = [self._of(level, "scale") * self._of(level, "up_bias") for level in self.levels]
        if not self.routed:
            up_weight, up_bias = weights[0], biases[0]
        else:
            routers = [self._of(level, "router") for level in self.levels]
            up_weight = torch.cat(
                [
                    router[row, :, None] * weight
                    for row in range(ROUTED)
                    for router, weight in zip(routers, weights, strict=True)
                ],
                dim=1,
            )
            up_bias = torch.stack([router * bias for router, bias in zip(routers, biases, strict=True)]).sum(dim=0)
        return down_weight.to(dtype), down_bias.to(dtype), up_weight.to(dtype), up_bias.to(dtype)

    def _of(self, level: str, name: str) -> nn.Parameter:
        return getattr(self, f"{level}_{name}")


class AdaptedT5LayerFF(T5LayerFF):
    """h + FF(LN(h)) + adapters(h)."""

    def __init__(self, config: T5Config, adapter: LionAdapter) -> None:
        super().__init__(config)
        self.adapter = adapter
        self.levels: Tensor | None = None

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Map states (B, L, d) to (B, L, d). T5Block passes states only, so `AdaptedT5Block` sets the levels before."""
        return super().forward(hidden_states) + self.adapter(hidden_states, self.levels)


class AdaptedT5Block(T5Block):
    """A T5 block whose feed-forward layer carries adapters. Takes ``levels`` (B,) as a keyword."""

    def __init__(self, config: T5Config, adapter: LionAdapter, layer_idx: int) -> None:
        super().__init__(config, has_relative_attention_bias=layer_idx == 0, layer_idx=layer_idx)
        self.layer[-1] = AdaptedT5LayerFF(config, adapter)

    def forward(self, hidden_states: Tensor, *args: Any, levels: Tensor | None = None, **kwargs: Any) -> Any:
        """Run the T5 block. Levels are set and removed within the call, as gradient checkpointing repeats the call."""
        feed_forward: Any = self.layer[-1]
        feed_forward.levels = levels
        try:
            return super().forward(hidden_states, *args, **kwargs)
        finally:
            feed_forward.levels = None


class StandardStart:
    """Mixin of models built from transformers' modules that initialize through `transformers.initialization`.

    transformers assumes that classes outside its package initialize in place, and then skips modules that hold no
    parameter directly: T5's attention and feed-forward layers would start with the deviation of its embeddings.
    """

    @classmethod
    def is_custom_code(cls) -> bool:
        """Return False: the initial values follow the rules of transformers' own models."""
        return False


class AdaptedT5Stack(StandardStart, T5Stack):
    """T5's encoder or decoder, built of `AdaptedT5Block`."""

    def __init__(self, config: T5Config, adapter_levels: Sequence[str], adapter_bottleneck: int) -> None:
        super().__init__(config)
        self.block = nn.ModuleList(
            AdaptedT5Block(config, LionAdapter(adapter_levels, config.d_model, adapter_bottleneck), layer_idx=index)
            for index in range(config.num_layers)
        )
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, LionAdapter):
            module.reset_parameters()


class AdaptedT5(StandardStart, T5ForConditionalGeneration):
    """Flan-T5 with LION's adapters in every feed-forward layer of encoder and decoder.

    Calls take ``levels`` (B,) besides T5's arguments. The head is not tied to the embeddings, whatever `T5Config`
    states, because Flan-T5's head is not.
    """

    _tied_weights_keys = {
        "encoder.embed_tokens.weight": "shared.weight",
        "decoder.embed_tokens.weight": "shared.weight",
    }

    def __init__(self, config: T5Config, adapter_levels: Sequence[str], adapter_bottleneck: int) -> None:
        super().__init__(config)
        self.encoder = AdaptedT5Stack(self.encoder.config, adapter_levels, adapter_bottleneck)
        self.decoder = AdaptedT5Stack(self.decoder.config, adapter_levels, adapter_bottleneck)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self:
            # T5's own start (deviation 1) is made for a tied, scaled head; untied it begins at a loss of several tens.
            init.normal_(self.lm_head.weight, mean=0.0, std=self.config.d_model**-0.5)

    @contextmanager
    def folded_adapters(self) -> Iterator[None]:
        """Fold every adapter's gates and scales once, for the many short calls of generation."""
        adapters = [module for module in self.modules() if isinstance(module, LionAdapter)]
        try:
            for adapter in adapters:
                adapter._folded = adapter._fold(self.shared.weight.dtype)
            yield
        finally:
            for adapter in adapters:
                adapter._folded = None
