"""A BERT that encodes tag strings and captions in one space, and its triplet loss."""

import os
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, PreTrainedModel

from models.tag_encoder.configuration import TagEncoderConfig


def triplet_margin_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2.0
) -> Tensor:
    """Return L = max(‖a − p‖_p − ‖a − n‖_p + margin, 0) for each sample.

    The published training of Dynamic LION's tag encoder uses margin 1, p = 2 and AdamW with learning rate 5e-5.

    Args:
        anchor, positive, negative: vectors, each (B, hidden).
        margin: by how much the positive must be closer than the negative, in the unit of the vectors; above 0.
        p: order of the norm; at least 1.

    Returns:
        The losses, (B,). 0 if the positive is closer by more than the margin.

    Raises:
        ValueError: the shapes differ, or margin or p is out of range.
    """
    if not anchor.shape == positive.shape == negative.shape:
        shapes = ", ".join(str(tuple(t.shape)) for t in (anchor, positive, negative))
        raise ValueError(f"anchor, positive and negative must have equal shapes, but are {shapes}.")
    if margin <= 0:
        raise ValueError(f"margin is {margin}; it must be above 0, because equal vectors would have no loss.")
    if p < 1:
        raise ValueError(f"p is {p}; the order of a norm is at least 1.")
    return nn.functional.triplet_margin_loss(anchor, positive, negative, margin=margin, p=p, reduction="none")


class TagEncoder(PreTrainedModel):
    """A BERT pooled to one vector per text. Tag strings and captions share the weights."""

    config_class = TagEncoderConfig
    base_model_prefix = "bert"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["BertEmbeddings", "BertLayer"]
    # BERT's pre-training heads, which plain BERT folders also have.
    _keys_to_ignore_on_load_unexpected = [r"pooler\.", r"^cls\.", r"position_ids"]

    def __init__(self, config: TagEncoderConfig) -> None:
        super().__init__(config)
        # Without BERT's pooler: its dense layer was trained for next-sentence prediction.
        self.bert = BertModel(config.bert, add_pooling_layer=False)
        self.post_init()

    @classmethod
    def from_bert(cls, path: str | os.PathLike[str], **kwargs: Any) -> "TagEncoder":
        """Return a tag encoder with the weights of a plain BERT folder, in float32 and eval mode.

        Args:
            path: a folder (or Hub name) for `BertModel.from_pretrained`. `TagEncoderProcessor.from_pretrained` loads
                the tokenizer from the same path.
            kwargs: fields of `TagEncoderConfig` other than ``bert``.

        Raises:
            ValueError: the folder has another architecture, or lacks weights of its BERT.
        """
        fields, _ = BertConfig.get_config_dict(path)
        if fields.get("model_type") != BertConfig.model_type:
            raise ValueError(f"{path} has a {fields.get('model_type')!r} model; the tag encoder needs a BERT.")
        config = TagEncoderConfig(bert=BertConfig.from_dict(fields), **kwargs)
        # transformers loads the keys of a bare BertModel under `bert.`, because that is `base_model_prefix`.
        loaded: Any = cls.from_pretrained(path, config=config, dtype=torch.float32, output_loading_info=True)
        model, info = loaded
        if info["missing_keys"]:
            missing = ", ".join(sorted(info["missing_keys"])[:5])
            raise ValueError(f"{path} lacks {len(info['missing_keys'])} weights of a BERT, among them {missing}.")
        return model

    def encode(self, input_ids: Tensor, attention_mask: Tensor, token_weights: Tensor | None = None) -> Tensor:
        """Return one vector per text.

        Args:
            input_ids: token ids (B, T).
            attention_mask: (B, T), 1 for tokens, 0 for padding.
            token_weights: weight of each token (B, T), as `TagEncoderProcessor` returns them. Used only by the pooling
                ``"confidence"``; None: 1 for every token.

        Returns:
            Vectors (B, hidden), of length 1 if the configuration sets ``normalize``.

        Raises:
            ValueError: the shapes of ``token_weights`` and ``input_ids`` differ.
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
        """Return `encode` of the arguments: training engines wrap `forward`."""
        return self.encode(input_ids, attention_mask, token_weights)
