"""Configuration of the tag encoder."""

from typing import Any, ClassVar, Literal, get_args

from transformers import AutoConfig, BertConfig, PreTrainedConfig

Pooling = Literal["cls", "mean", "confidence"]

_PRESETS: dict[str, dict[str, Any]] = {
    # The vocabulary stays BERT's, so that every preset reads the tokenizer of any uncased BERT folder.
    "tiny": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64},
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
}


class TagEncoderConfig(PreTrainedConfig):
    """A BERT and how its token states become one vector.

    Args:
        bert: The `BertConfig`, or a dict of its fields; BERT-base when absent.
        pooling: What becomes the vector. ``"cls"`` is the last state of ``[CLS]`` (as published); ``"mean"`` is the
            mean over the tokens; ``"confidence"`` is their mean weighted by the confidence of the tag that each token
            belongs to (special tokens and captions weigh 1, so that a caption is pooled as by ``"mean"``).
        normalize: Scale each vector to Euclidean length 1. It decides what a margin means: unit vectors lie at most 2
            apart under p = 2, so margins sit in (0, 2); raw vectors lie as far apart as their norms allow, so that the
            published margin of 1 is small (all-MiniLM-L6-v2's ``[CLS]`` of COCO captions is 7.8 long and two of them
            lie 7.5 apart on average). The published encoder does not normalize.
    """

    model_type = "lion_tag_encoder"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {"bert": BertConfig}

    bert: Any = None  # a BertConfig once built; Any, because a saved configuration hands in a dict
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
        """Width of the vectors that the encoder gives."""
        return self.bert.hidden_size

    @classmethod
    def preset(cls, name: str, **kwargs: Any) -> "TagEncoderConfig":
        """The configuration called ``name`` (tiny, minilm or base); ``kwargs`` are further fields of this class."""
        if name not in _PRESETS:
            raise ValueError(f"There is no tag encoder preset {name!r}; choose one of {', '.join(_PRESETS)}.")
        return cls(bert=BertConfig(**_PRESETS[name]), **kwargs)


# Auto classes of transformers read `config.json` beside the tokenizer and warn of a model type that they do not know.
AutoConfig.register(TagEncoderConfig.model_type, TagEncoderConfig)
