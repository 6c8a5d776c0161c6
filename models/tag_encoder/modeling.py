"""A BERT that maps tag strings and captions into one space, and the loss that it learns by."""

import os
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, PreTrainedModel

from models.tag_encoder.configuration import TagEncoderConfig


def triplet_margin_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2.0
) -> Tensor:
    """L = max(‖a − p‖_p − ‖a − n‖_p + margin, 0), one loss per sample.

    The published training of Dynamic LION's tag encoder uses margin 1, p 2 and AdamW at 5e-5.

    Args:
        anchor, positive, negative: Vectors, each (B, hidden).
        margin: How much nearer the positive must be than the negative, in the unit of the vectors; above 0.
        p: Order of the norm; at least 1.

    Returns:
        The losses, (B,). Zero where the positive is nearer by more than the margin.

    Raises:
        ValueError: If the shapes differ, or margin or p is out of range.
    """
    if not anchor.shape == positive.shape == negative.shape:
        shapes = ", ".join(str(tuple(t.shape)) for t in (anchor, positive, negative))
        raise ValueError(f"anchor, positive and negative need one shape, but are {shapes}.")
    if margin <= 0:
        raise ValueError(f"margin is {margin}; it must be above 0, or the loss has nothing to separate.")
    if p < 1:
        raise ValueError(f"p is {p}; below 1 it is no norm.")
    return nn.functional.triplet_margin_loss(anchor, positive, negative, margin=margin, p=p, reduction="none")


class TagEncoder(PreTrainedModel):
    """BERT, pooled to one vector per text. The same weights read tag strings and captions."""

    config_class = TagEncoderConfig
    base_model_prefix = "bert"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["BertEmbeddings", "BertLayer"]
    # BERT's pre-training heads, which plain folders hold besides.
    _keys_to_ignore_on_load_unexpected = [r"pooler\.", r"^cls\.", r"position_ids"]

    def __init__(self, config: TagEncoderConfig) -> None:
        super().__init__(config)
        # Without BERT's own pooler: its dense layer was trained for next-sentence prediction.
        self.bert = BertModel(config.bert, add_pooling_layer=False)
        self.post_init()

    @classmethod
    def from_bert(cls, path: str | os.PathLike[str], **kwargs: Any) -> "TagEncoder":
        """Return a tag encoder that starts from a plain BERT folder, in float32 and eval mode.

        Args:
            path: A folder (or hub name) that `BertModel.from_pretrained` reads. Its tokenizer is loaded by
                `TagEncoderProcessor.from_pretrained` of the same path.
            kwargs: Fields of `TagEncoderConfig` other than ``bert``.

        Raises:
            ValueError: If the folder holds another architecture or lacks weights of the BERT it describes.
        """
        fields, _ = BertConfig.get_config_dict(path)
        if fields.get("model_type") != BertConfig.model_type:
            raise ValueError(f"{path} holds a {fields.get('model_type')!r} model; the tag encoder starts from a BERT.")
        config = TagEncoderConfig(bert=BertConfig.from_dict(fields), **kwargs)
        # `base_model_prefix` lets transformers place the keys of a bare BertModel below `bert.`.
        loaded: Any = cls.from_pretrained(path, config=config, dtype=torch.float32, output_loading_info=True)
        model, info = loaded
        if info["missing_keys"]:
            missing = ", ".join(sorted(info["missing_keys"])[:5])
            raise ValueError(f"{path} lacks {len(info['missing_keys'])} weights of a BERT, among them {missing}.")
        return model

    def encode(self, input_ids: Tensor, attention_mask: Tensor, token_weights: Tensor | None = None) -> Tensor:
        """One vector per text.

        Args:
            input_ids: Token ids (B, T).
            attention_mask: 1 for tokens, 0 for padding (B, T).
            token_weights: Weight of each token (B, T), as `TagEncoderProcessor` gives them; read by the pooling
                ``"confidence"`` alone, where absence means 1 throughout.

        Returns:
            Vectors (B, hidden), of length 1 where the configuration says ``normalize``.
        """
        states = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        if self.config.pooling == "cls":
            vectors = states[:, 0]
        else:
            weights = attention_mask.to(states.dtype)
            if self.config.pooling == "confidence" and token_weights is not None:
                if token_weights.shape != input_ids.shape:
                    raise ValueError(
                        f"token_weights is {tuple(token_weights.shape)} and input_ids is {tuple(input_ids.shape)}; "
                        "each token needs one weight."
                    )
                weights = weights * token_weights.to(states.dtype)
            weights = weights / weights.sum(dim=1, keepdim=True).clamp_min(1e-6)
            vectors = torch.einsum("bt,bth->bh", weights, states)
        return nn.functional.normalize(vectors, dim=-1) if self.config.normalize else vectors

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_weights: Tensor | None = None) -> Tensor:
        """Same as `encode`; training engines wrap this."""
        return self.encode(input_ids, attention_mask, token_weights)
