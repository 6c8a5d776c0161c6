"""Configuration of RAM."""

from typing import Any, ClassVar

from transformers import AutoConfig, InstructBlipQFormerConfig, SwinConfig

from models.configs import ComposedConfig

_PRESETS: dict[str, dict[str, Any]] = {
    # For images of the sample world: the model trains within a minute on two cores.
    "tiny": {
        "swin": {"image_size": 48, "embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4), "window_size": 6},
        "head": {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96},
        "projection_dim": 32,
    },
    # The released ram_swin_large_14m.
    "swin_large": {
        "swin": {
            "image_size": 384,
            "embed_dim": 192,
            "depths": (2, 2, 18, 2),
            "num_heads": (6, 12, 24, 48),
            "window_size": 12,
        },
        "head": {"hidden_size": 768, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 3072},
        "projection_dim": 512,
    },
}


class RamConfig(ComposedConfig):
    """Configuration of a Swin image encoder and a tagging decoder whose queries are the tags.

    Args:
        swin: the `SwinConfig` of the image encoder, or a dict of its fields.
        head: the sizes of the tagging decoder: an `InstructBlipQFormerConfig`, because the decoder is built from its
            cross-attention, or a dict of its fields. ``encoder_hidden_size`` is always ``projection_dim``.
        n_tags: length of the tag list.
        projection_dim: width of the projected image tokens and of the label embeddings.
        gamma_neg, gamma_pos, clip: parameters of the asymmetric loss (`models.ram.loss`).
    """

    model_type = "lion_ram"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {"swin": SwinConfig, "head": InstructBlipQFormerConfig}

    # Typed Any: they are dicts when a saved configuration is loaded, and configurations after `__post_init__`.
    swin: Any = None
    head: Any = None
    n_tags: int = 4585
    projection_dim: int = 512
    gamma_neg: float = 7.0
    gamma_pos: float = 0.0
    clip: float = 0.05
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        large = _PRESETS["swin_large"]
        swin = large["swin"] if self.swin is None else self.swin
        head = large["head"] if self.head is None else self.head
        self.swin = SwinConfig(**swin) if isinstance(swin, dict) else swin
        self.head = InstructBlipQFormerConfig(**head) if isinstance(head, dict) else head
        self.head.encoder_hidden_size = self.projection_dim
        self._check()
        super().__post_init__(**kwargs)

    def _check(self) -> None:
        if self.n_tags < 1:
            raise ValueError(f"n_tags is {self.n_tags}; RAM needs at least one tag.")
        last_grid = self.swin.image_size // (self.swin.patch_size * 2 ** (len(self.swin.depths) - 1))
        if last_grid < self.swin.window_size:
            raise ValueError(
                f"The last Swin stage of a {self.swin.image_size} px image is {last_grid}x{last_grid}, smaller than "
                f"its window of {self.swin.window_size}: use larger images, a smaller window or fewer stages."
            )

    @classmethod
    def preset(cls, name: str, **kwargs: Any) -> "RamConfig":
        """Return the preset ``name`` (tiny or swin_large); ``kwargs`` replace its fields, such as ``n_tags``."""
        if name not in _PRESETS:
            raise ValueError(f"There is no RAM preset {name!r}; choose one of {', '.join(_PRESETS)}.")
        return cls(**_PRESETS[name] | kwargs)


AutoConfig.register(RamConfig.model_type, RamConfig)
