"""LION: two paths of visual knowledge into a frozen T5 with routed adapters (CVPR 2024, arXiv 2311.11860)."""

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    GenerationMixin,
    InstructBlipQFormerModel,
    InstructBlipVisionModel,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput
from transformers.models.t5.modeling_t5 import T5Block
from transformers.utils import GENERATION_CONFIG_NAME

from models.lion.adapters import AdaptedT5, StandardStart
from models.lion.aggregator import AggregatorProjection, VisionAggregator, intermediate_features
from models.lion.checks import check_levels, check_pixels, check_soft_tokens
from models.lion.configuration import LionConfig
from models.lion.generation import cache_for, generation_defaults
from models.lion.groups import FOUNDATIONS, parameter_group
from models.lion.prompts.base import PromptInputs
from models.tag_encoder import TagEncoder

_ENCODER_INPUTS = (
    "pixel_values",
    "input_ids",
    "attention_mask",
    "qformer_input_ids",
    "qformer_attention_mask",
    "tag_input_ids",
    "tag_attention_mask",
    "tag_token_weights",
)


@dataclass
class LionOutput(Seq2SeqLMOutput):
    """`Seq2SeqLMOutput` with each sample's own loss.

    Attributes:
        loss: Mean negative log-likelihood over the answer tokens of the batch, in nats; with ``labels``.
        sample_loss: Its sum over each sample's answer tokens (B,); with ``labels``.
        logits: (B, T, vocabulary).
        encoder_last_hidden_state: (B, visual tokens + text, d).
    """

    sample_loss: Tensor | None = None


class LionForConditionalGeneration(StandardStart, PreTrainedModel, GenerationMixin):
    """LION and Dynamic LION, with a language-model head.

    Its inputs are the outputs of `LionProcessor`. The ViT, T5 and the tag encoder are frozen. All other parts train at
    first; `models.lion.groups.set_trainable` chooses among them.
    """

    config_class = LionConfig
    config: LionConfig
    main_input_name = "input_ids"
    input_modalities = ["image", "text"]
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules = ["InstructBlipEncoderLayer", "InstructBlipQFormerLayer", "BertLayer", "AdaptedT5Block"]

    def __init__(self, config: LionConfig) -> None:
        super().__init__(config)
        vision, text = config.vision_config, config.text_config
        self.vision_model = InstructBlipVisionModel(vision)
        # LION normalizes only the Q-Former's input and trains that norm: `ln_vision` replaces the ViT's last norm.
        self.vision_model.post_layernorm = nn.Identity()  # type: ignore[assignment]
        self.language_model = AdaptedT5(text, config.adapters, config.adapter_bottleneck)
        if config.uses_qformer:
            self.ln_vision = nn.LayerNorm(vision.hidden_size, eps=1e-5)
            self.query_tokens = nn.Parameter(torch.empty(1, config.num_query_tokens, config.qformer_config.hidden_size))
            self.qformer = InstructBlipQFormerModel(config.qformer_config)
            self.t5_projection = nn.Linear(config.qformer_config.hidden_size, text.d_model)
        if config.uses_aggregator:
            config.aggregator_config._attn_implementation = config._attn_implementation
            self.vision_aggregator = VisionAggregator(config.aggregator_config, len(config.aggregator_levels) - 1)
            self.ln_aggregator = nn.LayerNorm(vision.hidden_size, eps=1e-5)
            self.aggregator_projection = AggregatorProjection(vision.hidden_size, text.d_model)
        config.prompt.design.add_modules(self)
        if config.fp32_groups:
            self._keep_in_fp32_modules_strict = {
                name for name, _ in self.named_parameters() if parameter_group(name) in config.fp32_groups
            }
        self.generation_config = generation_defaults(config)
        self.post_init()
        self.freeze_foundations()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load a model as `PreTrainedModel.from_pretrained` does, with two further rules.

        The parts that LION freezes are frozen again, because loading undoes it. A folder without
        `generation_config.json` gets LION's published settings; transformers would use one beam and 20 tokens.
        """
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.freeze_foundations()
        folder = args[0] if args else kwargs.get("pretrained_model_name_or_path")
        if folder is not None and os.path.isdir(folder) and kwargs.get("generation_config") is None:
            inner = os.path.join(folder, kwargs.get("subfolder", ""), GENERATION_CONFIG_NAME)
            if not os.path.isfile(inner):
                model.generation_config = generation_defaults(model.config)
        return loaded

    def freeze_foundations(self) -> None:
        """Freeze ViT, T5 and tag encoder; everything else trains."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(parameter_group(name) not in FOUNDATIONS)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, VisionAggregator):
            for dense in module.output_denses():
                init.zeros_(dense.weight)
                init.zeros_(dense.bias)
        elif module is self:
            if self.config.uses_qformer:
                init.normal_(self.query_tokens, mean=0.0, std=self.config.initializer_range)
            self.config.prompt.design.initialize(self)

    def get_input_embeddings(self) -> nn.Module:
        """Return T5's token embeddings."""
        return self.language_model.shared

    def set_tag_encoder(self, tag_encoder: TagEncoder) -> None:
        """Replace the tag encoder by a trained one; it stays frozen.

        Raises:
            ValueError: If this LION has no dynamic prompt, or the encoder's width is not the one it was built for.
        """
        if not self.config.prompt.dynamic:
            raise ValueError(f"A LION with prompt.kind={self.config.prompt.kind!r} reads no tag encoder.")
        have, want = tag_encoder.config.hidden_size, self.config.tag_encoder_config.hidden_size
        if have != want:
            raise ValueError(f"The tag encoder's vectors have {have} numbers, and this LION's projector reads {want}.")
        if self.config.prompt.pooling is not None:
            tag_encoder.config.pooling = self.config.prompt.pooling
        self.config.tag_encoder_config = tag_encoder.config
        self.tag_encoder = tag_encoder.requires_grad_(False).eval().to(self.device)

    def train(self, mode: bool = True) -> "LionForConditionalGeneration":
        """Set training mode for the trained modules only: frozen modules keep dropout off."""
        super().train(mode)
        if not mode:
            return self
        trained = {parameter_group(name) for name, parameter in self.named_parameters() if parameter.requires_grad}
        for group, module in (
            ("vision_model", self.vision_model),
            ("language_model", self.language_model),
            ("tag_encoder", getattr(self, "tag_encoder", None)),
            ("q_former", getattr(self, "qformer", None)),
            ("vision_aggregator", getattr(self, "vision_aggregator", None)),
        ):
            if module is not None and group not in trained:
                module.eval()
        # A block checkpoints activations only in training mode. Its dropout is in submodules, which stay in eval mode.
        for module in self.language_model.modules():
            if isinstance(module, T5Block):
                module.training = True
        return self

    def visual_tokens(
        self,
        pixel_values: Tensor,
        qformer_input_ids: Tensor | None = None,
        qformer_attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Return the visual tokens that the language model reads.

        Args:
            pixel_values: (B, 3, H, W) of the configured size.
            qformer_input_ids, qformer_attention_mask: The question for the Q-Former (B, L); unread without one.

        Returns:
            [Q-Former's queries ; aggregator's patches], (B, V, d).

        Raises:
            ValueError: If the size is another, or a value is NaN or infinite.
        """
        config = self.config
        check_pixels(pixel_values, config.image_size)
        deepest = config.vision_config.num_hidden_layers - 1
        levels = [deepest] * config.uses_qformer + list(config.aggregator_levels) * config.uses_aggregator
        with torch.set_grad_enabled(
            torch.is_grad_enabled() and any(p.requires_grad for p in self.vision_model.parameters())
        ):
            features = intermediate_features(self.vision_model, pixel_values, levels)
        paths = []
        if config.uses_qformer:
            if qformer_input_ids is None:
                raise ValueError("The Q-Former reads the question: qformer_input_ids is missing.")
            image = _cast(features[deepest], self.ln_vision)
            image = _cast(self.ln_vision(image), self.qformer)
            queries = self.query_tokens.expand(len(image), -1, -1)
            if qformer_attention_mask is None:
                qformer_attention_mask = torch.ones_like(qformer_input_ids)
            mask = torch.cat([qformer_attention_mask.new_ones(queries.shape[:2]), qformer_attention_mask], dim=1)
            states = self.qformer(
                input_ids=qformer_input_ids, attention_mask=mask, query_embeds=queries, encoder_hidden_states=image
            ).last_hidden_state[:, : queries.shape[1]]
            paths.append(self.t5_projection(_cast(states, self.t5_projection)))
        if config.uses_aggregator:
            fused = self.vision_aggregator(
                [_cast(features[level], self.vision_aggregator) for level in config.aggregator_levels]
            )
            fused = self.ln_aggregator(_cast(fused, self.ln_aggregator))
            paths.append(self.aggregator_projection(_cast(fused, self.aggregator_projection)))
        return torch.cat([path.to(self.language_model.shared.weight.dtype) for path in paths], dim=1)

    def text_embeddings(
        self,
        input_ids: Tensor,
        tag_input_ids: Tensor | None = None,
        tag_attention_mask: Tensor | None = None,
        tag_token_weights: Tensor | None = None,
    ) -> Tensor:
        """Return T5's embeddings of the prompt (B, L, d), with the soft prompt written over ``<extra_id_0>``.

        Raises:
            ValueError: If a prompt has another number of ``<extra_id_0>`` than there are vectors, or a dynamic prompt
                lacks its tags.
        """
        embeddings = self.language_model.shared(input_ids)
        inputs = PromptInputs(tag_input_ids, tag_attention_mask, tag_token_weights)
        vectors = self.config.prompt.design.vectors(self, embeddings, inputs)
        if vectors is None:
            return embeddings
        places = input_ids == self.config.soft_prompt_token_id
        check_soft_tokens(places, vectors.shape[1])
        return embeddings.masked_scatter(places[..., None], vectors)

    def encode(
        self, *, input_ids: Tensor, attention_mask: Tensor | None = None, levels: Tensor | None = None, **inputs: Any
    ) -> tuple[BaseModelOutput, Tensor]:
        """Run everything before the decoder.

        Args:
            input_ids, attention_mask: The prompt (B, L).
            levels: Each sample's level (B,), 0 region and 1 image.
            inputs: The other inputs of `forward` that end in the encoder.

        Returns:
            T5's encoder output, of length V + L, and its attention mask (B, V + L).
        """
        if inputs.get("pixel_values") is None:
            raise ValueError("pixel_values is missing: LION needs an image.")
        check_levels(levels, len(input_ids), routed=len(self.config.adapters) > 1)
        tags = {name: inputs.get(name) for name in ("tag_input_ids", "tag_attention_mask", "tag_token_weights")}
        visual = self.visual_tokens(
            inputs["pixel_values"], inputs.get("qformer_input_ids"), inputs.get("qformer_attention_mask")
        )
        text = self.text_embeddings(input_ids, **tags)
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        mask = torch.cat([attention_mask.new_ones(visual.shape[:2]), attention_mask], dim=1)
        encoder = self.language_model.encoder
        return encoder(inputs_embeds=torch.cat([visual, text], dim=1), attention_mask=mask, levels=levels), mask

    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        qformer_input_ids: Tensor | None = None,
        qformer_attention_mask: Tensor | None = None,
        levels: Tensor | None = None,
        tag_input_ids: Tensor | None = None,
        tag_attention_mask: Tensor | None = None,
        tag_token_weights: Tensor | None = None,
        labels: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: BaseModelOutput | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> LionOutput:
        """Compute the answer's logits and, with labels, the loss.

        Args:
            pixel_values: (B, 3, H, W).
            input_ids, attention_mask: The prompt (B, L). Where ``encoder_outputs`` is given, ``attention_mask`` is
                the encoder's own (B, V + L).
            qformer_input_ids, qformer_attention_mask: The question in the Q-Former's vocabulary (B, L').
            levels: Each sample's level (B,) int64: 0 region, 1 image. Samples of both may share a batch.
            tag_input_ids, tag_attention_mask, tag_token_weights: Tags of a dynamic prompt (B, L'').
            labels: Answer ids (B, T), -100 where none.

        Raises:
            ValueError: If an input that the configuration needs is missing, or one does not fit it.
        """
        if encoder_outputs is None:
            if input_ids is None:
                raise ValueError("input_ids is missing: give the prompt, or encoder_outputs.")
            encoder_outputs, attention_mask = self.encode(
                pixel_values=pixel_values,
                input_ids=input_ids,
                attention_mask=attention_mask,
                levels=levels,
                qformer_input_ids=qformer_input_ids,
                qformer_attention_mask=qformer_attention_mask,
                tag_input_ids=tag_input_ids,
                tag_attention_mask=tag_attention_mask,
                tag_token_weights=tag_token_weights,
            )
        if labels is not None and decoder_input_ids is None:
            decoder_input_ids = self.language_model._shift_right(labels)
            decoder_attention_mask = (labels != -100).long()
        output = self.language_model(
            encoder_outputs=encoder_outputs,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            past_key_values=past_key_values,
            use_cache=False if labels is not None else use_cache,
            levels=levels,
            **kwargs,
        )
        result = LionOutput(**output)
        if labels is not None:
            token_loss = functional.cross_entropy(
                output.logits.float().transpose(1, 2), labels, ignore_index=-100, reduction="none"
            )
            result["sample_loss"] = token_loss.sum(dim=1)
            result["loss"] = token_loss.sum() / (labels != -100).sum()
        return result

    @torch.no_grad()
    def generate(self, inputs: Tensor | None = None, **kwargs: Any) -> Any:  # type: ignore[override]
        """Generate answers from the outputs of `LionProcessor`; the defaults are in ``generation_config``.

        The images and the prompt are encoded once, before beams are formed; samples of both levels may share a batch.

        Returns:
            Answer ids (B · return sequences, length), padded after ``</s>``.
        """
        kwargs.pop("labels", None)
        if kwargs.get("encoder_outputs") is None:
            encoder_inputs = {name: kwargs.pop(name, None) for name in _ENCODER_INPUTS}
            if inputs is not None:
                encoder_inputs["input_ids"] = inputs
            if encoder_inputs["input_ids"] is None:
                raise ValueError("input_ids is missing: pass the outputs of LionProcessor to generate.")
            levels = kwargs.get("levels")
            kwargs["encoder_outputs"], kwargs["attention_mask"] = self.encode(levels=levels, **encoder_inputs)
        kwargs |= cache_for({"use_cache": self.generation_config.use_cache} | kwargs)
        with self.language_model.folded_adapters():
            return super().generate(**kwargs)  # type: ignore[misc]


def _cast(states: Tensor, module: nn.Module) -> Tensor:
    """Return ``states`` in the precision of ``module``'s parameters."""
    return states.to(next(module.parameters()).dtype)
