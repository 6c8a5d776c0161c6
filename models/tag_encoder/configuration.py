"""Configuration of the tag encoder."""

from typing import Any, ClassVar, Literal, get_args

from transformers import AutoConfig, BertConfig

from models.configs import ComposedConfig

Pooling = Literal["cls", "mean", "confidence"]

_PRESETS: dict[str, dict[str, Any]] = {
    # Every preset keeps BERT's vocabulary size, so that it works with the tokenizer of any uncased BERT.
    "tiny": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64},
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
}


class TagEncoderConfig(ComposedConfig):
    """Configuration of a BERT, and of the pooling of its token states to one vector.

    Args:
        bert: the `BertConfig`, or a dict of its fields; None: BERT-base.
        pooling: ``"cls"``: the last state of ``[CLS]`` (as published). ``"mean"``: the mean over the tokens.
            ``"confidence"``: the mean weighted by the confidence of the tag that a token belongs to. Special tokens
            and captions have the weight 1, so that a caption is pooled as with ``"mean"``.
        normalize: scale each vector to Euclidean length 1. This sets the scale of the loss's margin. The distance of
            unit vectors is at most 2 (p = 2), so useful margins are in (0, 2). The distance of raw vectors depends on
            their norms: all-MiniLM-L6-v2's ``[CLS]`` vectors of COCO captions have length 7.8 and a mean distance of
            7.5, so that the published margin of 1 is small. The published encoder does not normalize.
    """

    model_type = "lion_tag_encoder"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {"bert": BertConfig}

    bert: Any = None  # Typed Any: a dict when a saved configuration is loaded, a BertConfig after `__post_init__`.
    pooling: Pooling = "cls"
    normalize: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        if self.bert is None:
            self.bert = BertConfig()
        elif isinstance(self.bert, dict):
            self.bert = BertConfig(**self.bert)
        if self.pooling not in get_args(Pooling):
            raise ValueError(f"pooling is {self.pooling!r}; choose one of {', '.join(get_args(Pooling))}.")
        super().__post_init__(**kwargs)

    @property
    def hidden_size(self) -> int:
        """The width of the encoder's vectors."""
        return self.bert.hidden_size

    @classmethod
    def preset(cls, name: str, **kwargs: Any) -> "TagEncoderConfig":
        """Return the preset ``name`` (tiny, minilm or base); ``kwargs`` are further fields of this class."""
        if name not in _PRESETS:
            raise ValueError(f"There is no tag encoder preset {name!r}; choose one of {', '.join(_PRESETS)}.")
        return cls(bert=BertConfig(**_PRESETS[name]), **kwargs)


# `AutoTokenizer` also reads `config.json` and warns of a model type that is not registered.
AutoConfig.register(TagEncoderConfig.model_type, TagEncoderConfig)
