"""RAM built from parts of transformers: a Swin image encoder, and a decoder whose queries are the tags."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import InstructBlipQFormerConfig, PreTrainedModel, SwinModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.instructblip.modeling_instructblip import (
    InstructBlipQFormerAttention,
    InstructBlipQFormerIntermediate,
    InstructBlipQFormerOutput,
)
from transformers.utils import ModelOutput

from models.ram.configuration import RamConfig
from models.ram.loss import asymmetric_loss

# Largest feed-forward state of one chunk of tags, in elements: 32 MiB in float32.
_CHUNK_ELEMENTS = 2**23


@dataclass
class RamOutput(ModelOutput):
    """The output of `RamForImageTagging`.

    Attributes:
        loss: scalar; None without labels.
        logits: (B, n_tags); the sigmoid of a logit is the tag's confidence.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None


class RamTaggingLayer(GradientCheckpointingLayer):
    """Cross-attention from tags to image tokens, and a feed-forward, both post-norm. Tags do not see each other."""

    def __init__(self, config: InstructBlipQFormerConfig) -> None:
        super().__init__()
        self.crossattention = InstructBlipQFormerAttention(config, is_cross_attention=True)
        self.intermediate = InstructBlipQFormerIntermediate(config)
        self.output = InstructBlipQFormerOutput(config)

    def forward(self, hidden_states: Tensor, image_embeds: Tensor) -> Tensor:
        """Return tag states (B, tags, hidden) after attention to the image tokens (B, tokens, projection_dim)."""
        attended = self.crossattention(hidden_states, encoder_hidden_states=image_embeds)
        return self.output(self.intermediate(attended), attended)


class RamTaggingHead(PreTrainedModel):
    """The tagging decoder. It is a `PreTrainedModel`, so that ``attn_implementation`` applies to it."""

    config_class = InstructBlipQFormerConfig
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, config: InstructBlipQFormerConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(RamTaggingLayer(config) for _ in range(config.num_hidden_layers))
        self.post_init()

    def forward(self, queries: Tensor, image_embeds: Tensor) -> Tensor:
        """Return states (B, tags, hidden) of queries (tags, hidden) for image tokens (B, tokens, projection_dim)."""
        states = queries.unsqueeze(0).expand(image_embeds.shape[0], -1, -1)
        for layer in self.layers:
            states = layer(states, image_embeds)
        return states


class RamForImageTagging(PreTrainedModel):
    """The parts of RAM that tagging needs: 212 M of the 469 M parameters of the released file (``swin_large``).

    ``label_embed`` (n_tags, projection_dim) holds the embedding of each tag. In the released weights these are CLIP's
    text embeddings of RAM's 4585 tags. A model built from a configuration starts with random vectors of expected
    length 1 and trains them; `set_label_embeddings` replaces them.
    """

    config_class = RamConfig
    base_model_prefix = "ram"
    main_input_name = "pixel_values"
    input_modalities = "image"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules = ["SwinStage", "RamTaggingLayer"]

    def __init__(self, config: RamConfig) -> None:
        super().__init__(config)
        width = config.head.hidden_size
        self.swin = SwinModel(config.swin)
        self.image_proj = nn.Linear(config.swin.hidden_size, config.projection_dim)
        self.label_embed = nn.Parameter(torch.zeros(config.n_tags, config.projection_dim))
        self.wordvec_proj = nn.Linear(config.projection_dim, width)
        self.tagging_head = RamTaggingHead(config.head)
        self.fc = nn.Linear(width, 1)
        self._label_cache: tuple[Any, Tensor] | None = None
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self:
            init.normal_(self.label_embed, std=self.config.projection_dim**-0.5)

    def train(self, mode: bool = True) -> "RamForImageTagging":
        """Set the training mode. Drop the cached label queries too: training engines may change weights in place."""
        self._label_cache = None
        return super().train(mode)

    def set_label_embeddings(self, embeddings: Tensor) -> None:
        """Replace the label embeddings and update ``config.n_tags``.

        Args:
            embeddings: (n_tags, projection_dim).

        Raises:
            ValueError: there is no tag, or the width is not ``projection_dim``.
        """
        if embeddings.ndim != 2 or embeddings.shape[0] < 1 or embeddings.shape[1] != self.config.projection_dim:
            raise ValueError(
                f"Label embeddings are {tuple(embeddings.shape)}; they must be (tags, {self.config.projection_dim}) "
                "with at least one tag."
            )
        self.label_embed = nn.Parameter(embeddings.detach().to(self.label_embed).clone())
        self.config.n_tags = embeddings.shape[0]

    def select_tags(self, indices: Sequence[int]) -> None:
        """Keep the tags at ``indices``, in that order. Fewer tags make the head proportionally cheaper.

        `RamProcessor.select_tags` returns the indices of tags by name.
        """
        self.set_label_embeddings(self.label_embed[list(indices)])

    def _label_queries(self) -> Tensor:
        """Return relu(wordvec_proj(label_embed)), (n_tags, hidden), cached because it is the same for every image.

        The cache is used outside autograd only, and only while its source weights are the same, unchanged tensors.
        """
        sources = (self.label_embed, self.wordvec_proj.weight, self.wordvec_proj.bias)
        if torch.is_grad_enabled() or any(t.is_inference() for t in sources):
            return nn.functional.relu(self.wordvec_proj(self.label_embed))
        key = tuple((t.data_ptr(), t._version, t.dtype, t.device) for t in sources)
        if self._label_cache is None or self._label_cache[0] != key:
            self._label_cache = (key, nn.functional.relu(self.wordvec_proj(self.label_embed)))
        return self._label_cache[1]

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """Return projected image tokens (B, 1 + tokens, projection_dim); the first is their mean."""
        size = self.config.swin.image_size
        if pixel_values.ndim != 4 or pixel_values.shape[1:] != (3, size, size):
            raise ValueError(
                f"pixel_values are {tuple(pixel_values.shape)}; this RAM needs (B, 3, {size}, {size}), "
                "as RamProcessor returns them."
            )
        encoded = self.swin(pixel_values.to(self.image_proj.weight.dtype))
        return self.image_proj(torch.cat((encoded.pooler_output.unsqueeze(1), encoded.last_hidden_state), dim=1))

    def _tag_logits(self, image_embeds: Tensor, tag_chunk: int) -> Tensor:
        chunks = self._label_queries().split(tag_chunk)
        return torch.cat([self.fc(self.tagging_head(queries, image_embeds)).squeeze(-1) for queries in chunks], dim=1)

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None, tag_chunk: int | None = None) -> RamOutput:
        """Return the logits of every tag, and the loss if labels are passed.

        Args:
            pixel_values: (B, 3, image_size, image_size), normalized by `RamProcessor`.
            labels: multi-hot (B, n_tags), for the asymmetric loss.
            tag_chunk: number of tags that pass the head together; None: all. It changes the memory but not the
                result, because tags do not attend to each other.
        """
        image_embeds = self.encode_image(pixel_values)
        if tag_chunk is not None and tag_chunk < 1:
            raise ValueError(f"tag_chunk is {tag_chunk}; it must be at least 1.")
        logits = self._tag_logits(image_embeds, tag_chunk or self.config.n_tags)
        loss = None
        if labels is not None:
            loss = asymmetric_loss(logits, labels, self.config.gamma_neg, self.config.gamma_pos, self.config.clip)
        return RamOutput(loss=loss, logits=logits)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Switch dropout and drop-path off within the context, and restore the mode after it."""
        was_training = self.training
        if was_training:
            self.eval()
        try:
            yield
        finally:
            if was_training:
                self.train()

    @torch.no_grad()
    def confidences(self, pixel_values: Tensor, tag_chunk: int | None = None) -> Tensor:
        """Return the confidence of every tag, in [0, 1]. It is deterministic: eval mode, without autograd.

        Args:
            pixel_values: (B, 3, image_size, image_size).
            tag_chunk: as in `forward`. None: the number that keeps the head's largest state near 32 MiB in float32.

        Returns:
            (B, n_tags), float32, without a threshold.

        Raises:
            ValueError: a pixel is NaN or infinite; the message names the images of the batch.
        """
        if pixel_values.ndim == 4:  # `forward` raises for any other shape
            # One sum per image finds every NaN and infinity without a temporary tensor of the size of the batch.
            sums = pixel_values.sum(dim=(1, 2, 3), dtype=torch.float32)
            if bad := (~torch.isfinite(sums)).nonzero().flatten().tolist():
                raise ValueError(f"pixel_values hold NaN or infinity in the images {bad} of the batch.")
        if tag_chunk is None:
            per_tag = max(1, pixel_values.shape[0]) * self.config.head.intermediate_size
            tag_chunk = max(1, _CHUNK_ELEMENTS // per_tag)
        with self._evaluating():
            return torch.sigmoid(self(pixel_values, tag_chunk=tag_chunk).logits.float())
