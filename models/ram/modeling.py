"""RAM of transformers' parts: a Swin encoder, and a decoder whose queries are the tags."""

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

# Largest feed-forward state of one chunk of tags, in elements.
_CHUNK_ELEMENTS = 2**23


@dataclass
class RamOutput(ModelOutput):
    """What `RamForImageTagging` gives.

    Attributes:
        loss: Scalar, where labels were given.
        logits: (B, n_tags); their sigmoid is each tag's confidence.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None


class RamTaggingLayer(GradientCheckpointingLayer):
    """Cross-attention from tags to image tokens and a feed-forward, both post-norm. Tags do not see each other."""

    def __init__(self, config: InstructBlipQFormerConfig) -> None:
        super().__init__()
        self.crossattention = InstructBlipQFormerAttention(config, is_cross_attention=True)
        self.intermediate = InstructBlipQFormerIntermediate(config)
        self.output = InstructBlipQFormerOutput(config)

    def forward(self, hidden_states: Tensor, image_embeds: Tensor) -> Tensor:
        """Tag states (B, tags, hidden) after looking at the image tokens (B, tokens, projection_dim)."""
        attended = self.crossattention(hidden_states, encoder_hidden_states=image_embeds)
        return self.output(self.intermediate(attended), attended)


class RamTaggingHead(PreTrainedModel):
    """The decoder: tag queries against image tokens. A model of its own, so that it obeys `attn_implementation`."""

    config_class = InstructBlipQFormerConfig
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, config: InstructBlipQFormerConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(RamTaggingLayer(config) for _ in range(config.num_hidden_layers))
        self.post_init()

    def forward(self, queries: Tensor, image_embeds: Tensor) -> Tensor:
        """State (B, tags, hidden) of the queries (tags, hidden) for each image (B, tokens, projection_dim)."""
        states = queries.unsqueeze(0).expand(image_embeds.shape[0], -1, -1)
        for layer in self.layers:
            states = layer(states, image_embeds)
        return states


class RamForImageTagging(PreTrainedModel):
    """The parts of RAM that tagging needs: 212 M of the released file's 469 M parameters at ``swin_large``.

    ``label_embed`` (n_tags, projection_dim) says what each tag is. The released weights hold the CLIP text embeddings
    of RAM's 4585 tags. A model built from a configuration starts from random vectors of expected length 1 and learns
    them with the rest; `set_label_embeddings` takes a user's own.
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
        """As in PyTorch; also drops the cached label queries, which training engines may change unseen."""
        self._label_cache = None
        return super().train(mode)

    def set_label_embeddings(self, embeddings: Tensor) -> None:
        """Replace the tag list's embeddings (n_tags, projection_dim); ``config.n_tags`` follows.

        Raises:
            ValueError: If there is no tag or the width is not ``projection_dim``.
        """
        if embeddings.ndim != 2 or embeddings.shape[0] < 1 or embeddings.shape[1] != self.config.projection_dim:
            raise ValueError(
                f"Label embeddings are {tuple(embeddings.shape)}; they must be (tags, {self.config.projection_dim}) "
                "with at least one tag."
            )
        self.label_embed = nn.Parameter(embeddings.detach().to(self.label_embed).clone())
        self.config.n_tags = embeddings.shape[0]

    def select_tags(self, indices: Sequence[int]) -> None:
        """Keep the tags at ``indices`` of the present list, in that order. The head's cost falls with their number.

        `RamProcessor.select_tags` gives the indices of tags by name.
        """
        self.set_label_embeddings(self.label_embed[list(indices)])

    def _label_queries(self) -> Tensor:
        """relu(wordvec_proj(label_embed)), (n_tags, hidden): the same for every image, so kept between calls.

        Kept outside autograd only, and only while the weights it came from are the same tensors, unchanged.
        """
        sources = (self.label_embed, self.wordvec_proj.weight, self.wordvec_proj.bias)
        if torch.is_grad_enabled() or any(t.is_inference() for t in sources):
            return nn.functional.relu(self.wordvec_proj(self.label_embed))
        key = tuple((t.data_ptr(), t._version, t.dtype, t.device) for t in sources)
        if self._label_cache is None or self._label_cache[0] != key:
            self._label_cache = (key, nn.functional.relu(self.wordvec_proj(self.label_embed)))
        return self._label_cache[1]

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """Projected image tokens (B, 1 + tokens, projection_dim), their mean first."""
        size = self.config.swin.image_size
        if pixel_values.ndim != 4 or pixel_values.shape[1:] != (3, size, size):
            raise ValueError(
                f"pixel_values are {tuple(pixel_values.shape)}; this RAM reads (B, 3, {size}, {size}), "
                "as RamProcessor gives them."
            )
        encoded = self.swin(pixel_values.to(self.image_proj.weight.dtype))
        return self.image_proj(torch.cat((encoded.pooler_output.unsqueeze(1), encoded.last_hidden_state), dim=1))

    def _tag_logits(self, image_embeds: Tensor, tag_chunk: int) -> Tensor:
        chunks = self._label_queries().split(tag_chunk)
        return torch.cat([self.fc(self.tagging_head(queries, image_embeds)).squeeze(-1) for queries in chunks], dim=1)

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None, tag_chunk: int | None = None) -> RamOutput:
        """Logits of every tag.

        Args:
            pixel_values: (B, 3, image_size, image_size), normalized as `RamProcessor` does.
            labels: Multi-hot (B, n_tags); gives the asymmetric loss.
            tag_chunk: How many tags go through the head at a time; all when absent. Tags do not see each other, so it
                changes memory and not the result.
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
        """Dropout and drop-path off within, whatever the mode outside."""
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
        """Confidence of every tag, in [0, 1]. Deterministic: always in eval mode and outside autograd.

        Args:
            pixel_values: (B, 3, image_size, image_size).
            tag_chunk: As in `forward`; when absent, as many as keep the head's largest state near 32 MiB in float32.

        Returns:
            (B, n_tags), float32, no threshold applied.

        Raises:
            ValueError: If a pixel is NaN or infinite; the message names the images of the batch.
        """
        if pixel_values.ndim == 4:  # `forward` refuses any other shape
            # A sum is NaN or infinite where one of its terms is, and takes no tensor of the images' size.
            sums = pixel_values.sum(dim=(1, 2, 3), dtype=torch.float32)
            if bad := (~torch.isfinite(sums)).nonzero().flatten().tolist():
                raise ValueError(f"pixel_values hold NaN or infinity in the images {bad} of the batch.")
        if tag_chunk is None:
            per_tag = max(1, pixel_values.shape[0]) * self.config.head.intermediate_size
            tag_chunk = max(1, _CHUNK_ELEMENTS // per_tag)
        with self._evaluating():
            return torch.sigmoid(self(pixel_values, tag_chunk=tag_chunk).logits.float())
