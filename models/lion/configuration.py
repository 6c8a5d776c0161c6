"""Configuration of LION and its presets."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

from transformers import AutoConfig, BertConfig, InstructBlipQFormerConfig, InstructBlipVisionConfig, T5Config
from transformers import PreTrainedConfig as _PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from models.configs import ComposedConfig
from models.lion.presets import PRESETS
from models.lion.prompts import prompt_design
from models.lion.prompts.base import PromptDesign
from models.tag_encoder import TagEncoderConfig

VisualInput = Literal["all", "qformer", "aggregator"]
Projector = Literal["linear", "mlp"]
Level = Literal["region", "image"]

# The order is the released one: adapter 0 and router row 0 are region level, adapter 1 and row 1 image level.
LEVELS: tuple[Level, ...] = get_args(Level)


def _choose(field: str, value: Any, choices: Any) -> None:
    if value not in get_args(choices):
        raise ValueError(f"{field} is {value!r}; choose one of {', '.join(get_args(choices))}.")


class PromptConfig(_PreTrainedConfig):
    """The prompt before the question in the language model's input.

    Args:
        kind: ``"none"``: the question alone. ``"static"``: LION's sentence with one learned vector written over
            ``<extra_id_0>``. ``"dynamic"``: vectors of each image, projected from its tags and confidences.
            ``"both"``: the learned vector first, then the image's vectors. Or another design of `models.lion.prompts`.
        tokens: Vectors per image of the dynamic prompt.
        projector: From the tag encoder's width to the language model's: one linear layer, or an MLP with one hidden
            layer as wide as the language model.
        tags_in_text: Whether the prompt's text lists the tags.
        confidence_in_text: Whether each listed tag carries its confidence (``dog: 0.98``).
        pooling: How the tag encoder pools (cls, mean or confidence); None keeps what it was trained with.
    """

    model_type = "lion_prompt"

    kind: str = "static"
    tokens: int = 1
    projector: str = "linear"
    tags_in_text: bool = True
    confidence_in_text: bool = False
    pooling: str | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        prompt_design(self.kind)  # raises for an unknown kind
        _choose("prompt.projector", self.projector, Projector)
        if self.tokens < 1:
            raise ValueError(f"prompt.tokens is {self.tokens}; a dynamic prompt has at least 1 vector.")
        if self.confidence_in_text and not self.tags_in_text:
            raise ValueError(
                "prompt.confidence_in_text needs prompt.tags_in_text, because confidences are written next to tags."
            )
        super().__post_init__(**kwargs)

    @property
    def design(self) -> PromptDesign:
        """The registered design of ``kind``."""
        return prompt_design(self.kind)

    @property
    def dynamic(self) -> bool:
        """Whether the prompt uses a tag encoder."""
        return self.design.uses_tag_encoder

    @property
    def reads_tags(self) -> bool:
        """Whether a prompt uses the image's tags: as vectors, or in its text."""
        return self.design.reads_tags(self)

    @property
    def soft_tokens(self) -> int:
        """Positions of ``<extra_id_0>`` in each prompt."""
        return self.design.slots(self)


class LionConfig(ComposedConfig):
    """LION (arXiv 2311.11860) and Dynamic LION: a frozen ViT and T5, and the trained modules between them.

    Args:
        vision_config: The ViT (`InstructBlipVisionConfig`); its own last LayerNorm is not used.
        qformer_config: The Q-Former (`InstructBlipQFormerConfig`).
        aggregator_config: Each block of the Vision Aggregator (`BertConfig`); width and cross-attention are set here.
        text_config: The T5 (`T5Config`).
        tag_encoder_config: The tag encoder of a dynamic prompt (`TagEncoderConfig`), else None.
        prompt: `PromptConfig` or a dict of its fields.
        visual_input: Which of the two visual paths feed the language model.
        num_query_tokens: Learned queries of the Q-Former.
        aggregator_levels: ViT blocks, counted from 0, that the aggregator fuses: the first is the starting point, each
            further one is attended to by one aggregator block.
        adapters: Levels with an adapter in every feed-forward layer of T5. With both, a router weighs them by each
            sample's level; a single one serves every sample. None: image for the Q-Former alone, region for the
            aggregator alone, both otherwise.
        adapter_bottleneck: Inner width of an adapter.
        text_activation: T5's activation. LION runs Flan-T5 with the erf ``"gelu"``; Flan-T5 itself has ``"gelu_new"``.
        soft_prompt_token_id: Id of ``<extra_id_0>`` in the tokenizer.
        fp32_groups: Groups of `models.lion.groups` that stay in float32 where the model is loaded or cast by
            `models.lion.precision` in a lower precision.
        initializer_range: Standard deviation of new weights.
    """

    model_type = "lion"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "vision_config": InstructBlipVisionConfig,
        "qformer_config": InstructBlipQFormerConfig,
        "aggregator_config": BertConfig,
        "text_config": T5Config,
        "tag_encoder_config": SubConfigSpec(TagEncoderConfig, optional=True),
        "prompt": PromptConfig,
    }

    # Given as a configuration, a dict of its fields or None; a configuration afterwards.
    vision_config: Any = None
    qformer_config: Any = None
    aggregator_config: Any = None
    text_config: Any = None
    tag_encoder_config: Any = None
    prompt: Any = None
    visual_input: str = "all"
    num_query_tokens: int = 32
    aggregator_levels: Sequence[int] = (38, 28, 18)
    adapters: Any = None
    adapter_bottleneck: int = 64
    text_activation: str = "gelu"
    soft_prompt_token_id: int = 32099
    fp32_groups: Sequence[str] = ()
    initializer_range: float = 0.02
    is_encoder_decoder: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        _choose("visual_input", self.visual_input, VisualInput)
        self.prompt = _config(PromptConfig, self.prompt)
        self.vision_config = _config(InstructBlipVisionConfig, self.vision_config)
        self._set_language_model()
        self._set_visual_paths()
        self._set_tag_encoder()
        if self.adapters is None:
            self.adapters = {"qformer": ["image"], "aggregator": ["region"]}.get(self.visual_input, list(LEVELS))
        for level in self.adapters:
            _choose("adapters", level, Level)
        self.adapters = [level for level in LEVELS if level in self.adapters]
        self.aggregator_levels = list(self.aggregator_levels)
        self.fp32_groups = list(self.fp32_groups)
        super().__post_init__(**kwargs)

    def _set_language_model(self) -> None:
        self.text_config = _config(T5Config, self.text_config)
        self.text_config.dense_act_fn = self.text_activation
        # transformers 5 always reports a tied lm_head in T5Config; AdaptedT5 ties the embeddings alone, and scaling the
        # outputs belongs to a tied head.
        self.text_config.scale_decoder_outputs = False
        self.pad_token_id = self.text_config.pad_token_id
        self.eos_token_id = self.text_config.eos_token_id
        self.decoder_start_token_id = getattr(self.text_config, "decoder_start_token_id", None)
        if self.decoder_start_token_id is None:
            self.decoder_start_token_id = self.text_config.decoder_start_token_id = self.pad_token_id

    def _set_visual_paths(self) -> None:
        width, depth = self.vision_config.hidden_size, self.vision_config.num_hidden_layers
        self.qformer_config = _config(InstructBlipQFormerConfig, self.qformer_config, vocab_size=30523)
        self.qformer_config.encoder_hidden_size = width
        self.aggregator_config = _config(
            BertConfig, self.aggregator_config, num_attention_heads=16, intermediate_size=3072, layer_norm_eps=1e-12
        )
        self.aggregator_config.hidden_size = width
        self.aggregator_config.is_decoder = self.aggregator_config.add_cross_attention = True
        if self.uses_aggregator:
            outside = [level for level in self.aggregator_levels if not 0 <= level < depth]
            if outside or len(self.aggregator_levels) < 2:
                raise ValueError(
                    f"aggregator_levels is {list(self.aggregator_levels)}; give at least two blocks between 0 and "
                    f"{depth - 1}, as the ViT has {depth}."
                )

    def _set_tag_encoder(self) -> None:
        if not self.prompt.dynamic:
            self.tag_encoder_config = None
            return
        self.tag_encoder_config = _config(TagEncoderConfig, self.tag_encoder_config)
        if self.prompt.pooling is not None:
            _choose("prompt.pooling", self.prompt.pooling, Literal["cls", "mean", "confidence"])
            self.tag_encoder_config.pooling = self.prompt.pooling

    @property
    def uses_qformer(self) -> bool:
        """Whether the language model sees the Q-Former's queries."""
        return self.visual_input in ("all", "qformer")

    @property
    def uses_aggregator(self) -> bool:
        """Whether the language model sees the Vision Aggregator's patches."""
        return self.visual_input in ("all", "aggregator")

    @property
    def image_size(self) -> int:
        """Height and width of the input image in pixels."""
        return self.vision_config.image_size

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> "LionConfig":
        """Return the configuration called ``name``: tiny, small, base, xl or xxl.

        Small to xxl are Flan-T5's sizes with LION's own vision (EVA-ViT-g/14, BERT-base Q-Former); tiny has about
        3 million parameters, reads 48 × 48 pixels and fits the vocabularies of `models.lion.vocabulary`.

        Args:
            overrides: Fields of this class; a dict for a sub-configuration replaces the fields it names only.

        Raises:
            ValueError: If there is no such preset, or a field or value is wrong.
        """
        if name not in PRESETS:
            raise ValueError(f"There is no LION preset {name!r}; choose one of {', '.join(PRESETS)}.")
        fields: dict[str, Any] = {key: dict(v) if isinstance(v, dict) else v for key, v in PRESETS[name].items()}
        for key, value in overrides.items():
            if key not in cls.__dataclass_fields__:
                raise ValueError(f"LionConfig has no field {key!r}.")
            if isinstance(value, dict) and isinstance(fields.get(key), dict):
                fields[key].update(value)
            else:
                fields[key] = value
        return cls(**fields)


def _config(config_class: type[_PreTrainedConfig], value: Any, **defaults: Any) -> Any:
    """Return ``value`` as a ``config_class``; a dict is completed by ``defaults``."""
    if isinstance(value, _PreTrainedConfig):
        return value
    return config_class(**(defaults | dict(value or {})))


AutoConfig.register(LionConfig.model_type, LionConfig)
