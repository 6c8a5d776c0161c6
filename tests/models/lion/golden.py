"""Reference tensors against ours: one number per quantity, for the parity tests and for the parity table."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import T5Config

from models.lion import LEVELS, LionConfig, LionForConditionalGeneration
from models.lion.conversion import place, released_config
from models.lion.naming import to_ours

ATTENTION = ("eager", "sdpa")
TOLERANCE = {"activations": 2e-5, "logits": 2e-5, "loss": 1e-5, "gradients": 5e-4, "ids": 0.0}


def golden_root() -> Path:
    """``$LION_GOLDEN``, else ``../shared/golden`` beside the repository."""
    default = Path(__file__).resolve().parents[3].parent / "shared" / "golden"
    return Path(os.environ.get("LION_GOLDEN", default))


def lion_cases() -> list[Path]:
    """Every folder below the root whose ``config.json`` is a LION case's."""
    found = []
    for file in sorted(golden_root().rglob("config.json")) if golden_root().is_dir() else []:
        config = json.loads(file.read_text(encoding="utf-8"))
        if "visual_input" in config and "vit" in config and (file.parent / "outputs.safetensors").is_file():
            found.append(file.parent)
    return found


@dataclass(frozen=True)
class Case:
    """One case folder, read by what stands in it."""

    folder: Path

    def _json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    @cached_property
    def settings(self) -> dict[str, Any]:
        return self._json("config.json")

    @cached_property
    def meta(self) -> dict[str, Any]:
        return self._json("meta.json")

    @cached_property
    def grads(self) -> dict[str, dict[str, Any]]:
        return self._json("grads.json") if (self.folder / "grads.json").is_file() else {}

    @cached_property
    def outputs(self) -> dict[str, Tensor]:
        return load_file(self.folder / "outputs.safetensors")

    @cached_property
    def texts(self) -> dict[str, list[str]]:
        return self._json("inputs.json")

    @cached_property
    def state(self) -> dict[str, Tensor]:
        """The case's released state dict: its own file, or its part of the one further up."""
        for folder in (self.folder, *self.folder.parents):
            if (folder / "state_dict.safetensors").is_file():
                state = load_file(folder / "state_dict.safetensors")
                break
        else:
            raise FileNotFoundError(f"no state_dict.safetensors at or above {self.folder}")
        keys = self.meta.get("state_dict_keys", list(state))
        unread = () if self.settings.get("enable_semantic_tags", True) else ("soft_prompt_hint",)
        return {key: state[key] for key in keys if key not in unread}

    @property
    def tokenizers(self) -> Path | None:
        """The folder of the tiny tokenizers."""
        folders = (folder / "tokenizers" for folder in (self.folder, *self.folder.parents))
        return next((folder for folder in folders if folder.is_dir()), None)

    @property
    def levels(self) -> list[str]:
        return [key.split(".")[0] for key in self.outputs if key.endswith("_level.loss")]

    def config(self) -> LionConfig:
        """The configuration, read off the weights, with what no shape tells."""
        settings, t5 = self.settings, dict(self.settings["t5"])
        activation = t5.pop("dense_act_fn", "gelu")
        blocks = sorted((int(key[16:]) for key in self.outputs if key.startswith("encode.vit_block")), reverse=True)
        overrides: dict[str, Any] = {
            "vision_config": {
                "num_attention_heads": settings["vit"]["num_heads"],
                "layer_norm_eps": settings["vit"].get("norm_eps", 1e-6),
            },
            "text_activation": activation,
            "soft_prompt_token_id": self.meta.get("tag_softPrompt_id", 32099),
        }
        if settings["visual_input"] in ("ALL", "QFORMER"):
            overrides["qformer_config"] = {"num_attention_heads": settings["bert_config"]["num_attention_heads"]}
        if settings["visual_input"] in ("ALL", "AGGREGATOR"):
            overrides["aggregator_config"] = {"num_attention_heads": settings["fusion"]["num_heads"]}
            overrides["aggregator_levels"] = blocks[: settings["fusion"]["num_blocks"] + 1]
        shapes = {key: tuple(tensor.shape) for key, tensor in self.state.items()}
        return released_config(shapes, T5Config(**t5), overrides)

    def model(self, attention: str) -> LionForConditionalGeneration:
        """Our model with the reference's weights, through the converter's own placing."""
        config = self.config()
        config._attn_implementation = attention
        model = LionForConditionalGeneration(config)
        missing, unexpected = model.load_state_dict(dict(place(self.state.items(), config, {})), strict=False)
        assert not unexpected
        assert all("embed_tokens" in key for key in missing), missing
        return model.eval()

    def batch(self, level: str, phase: str = "forward") -> dict[str, Tensor]:
        """Our model's inputs, from the reference's own tokens."""
        image = load_file(self.folder / "inputs.safetensors")["image"]
        row = LEVELS.index("image" if level.startswith("image") else "region")
        batch = {
            "pixel_values": image,
            "input_ids": self.outputs[f"tok.t5_ids_{phase}"],
            "attention_mask": self.outputs[f"tok.t5_mask_{phase}"],
            "levels": torch.full((len(image),), row),
        }
        if "tok.qformer_ids" in self.outputs:
            batch["qformer_input_ids"] = self.outputs["tok.qformer_ids"]
            batch["qformer_attention_mask"] = self.outputs["tok.qformer_mask"]
        return batch


@dataclass
class Comparison:
    """Worst difference per quantity, and which tensor it was."""

    worst: dict[str, float] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)
    compared: set[str] = field(default_factory=set)

    def note(self, quantity: str, name: str, difference: float) -> None:
        self.compared.add(name)
        # "not <=" so that a NaN is the worst of all.
        if quantity not in self.worst or not difference <= self.worst[quantity]:
            self.worst[quantity], self.where[quantity] = difference, name

    def tensors(self, quantity: str, name: str, ours: Tensor, reference: Tensor) -> None:
        assert ours.shape == reference.shape, (name, ours.shape, reference.shape)
        self.note(quantity, name, (ours - reference).abs().max().item())


@contextmanager
def recorded(model: LionForConditionalGeneration) -> Iterator[dict[str, Tensor]]:
    """Outputs of the parts that the reference recorded, under the reference's names."""
    parts: dict[str, nn.Module] = {}
    layers = model.vision_model.encoder.layers
    parts |= {f"encode.vit_block{index}": layer for index, layer in enumerate(layers)}
    parts["encode.vit_last"] = layers[-1]
    if model.config.uses_qformer:
        parts["encode.ln_vision_out"] = model.ln_vision
        parts["encode.qformer_embeddings"] = model.qformer.embeddings
        parts |= {f"encode.qformer_layer{i}": layer for i, layer in enumerate(model.qformer.encoder.layer)}
        parts["encode.qformer_last"] = model.qformer.encoder.layer[-1]
    if model.config.uses_aggregator:
        parts |= {f"encode.fusion_block{i}": block for i, block in enumerate(model.vision_aggregator.blocks)}
        parts["encode.fusion_out"] = model.vision_aggregator
        parts["encode.ln_adapter_out"] = model.ln_aggregator
        parts["encode.adapter_proj_out"] = model.aggregator_projection
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda module, args, output: seen.__setitem__(name, output.detach())

    def keep_embeddings(module: nn.Module, args: Any, kwargs: dict[str, Tensor]) -> None:
        seen["encoder_inputs_embeds"] = kwargs["inputs_embeds"].detach()

    encoder = model.language_model.encoder
    handles = [encoder.register_forward_pre_hook(keep_embeddings, with_kwargs=True)]
    handles += [part.register_forward_hook(keep(name)) for name, part in parts.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def up_to_eos(ids: Tensor, eos: int) -> list[list[int]]:
    """Each row's tokens after the start token and before the first ``</s>``: what the answer's text is made of."""
    rows = []
    for row in ids.tolist():
        body = row[1:]
        rows.append(body[: body.index(eos)] if eos in body else body)
    return rows


@cache
def compare(folder: Path, attention: str) -> Comparison:
    """Run one case and compare all that the reference recorded."""
    case, result = Case(folder), Comparison()
    model = case.model(attention)
    for level in case.levels:
        _compare_forward(case, model, level, result)
        _compare_generation(case, model, level, result)
    return result


def _compare_forward(case: Case, model: LionForConditionalGeneration, level: str, result: Comparison) -> None:
    outputs, batch = case.outputs, case.batch(level)
    model.zero_grad()
    with recorded(model) as seen:
        labels = outputs[f"{level}.labels"]
        loss = model(**batch, labels=labels)
    embedded = seen[f"{level}.encoder_inputs_embeds"] = seen.pop("encoder_inputs_embeds")
    seen["encode.inputs_t5"] = embedded[:, : -batch["input_ids"].shape[1]]
    seen[f"{level}.encoder_last"] = loss.encoder_last_hidden_state.detach()
    for name in seen.keys() & outputs.keys():
        result.tensors("activations", name, seen[name], outputs[name])
    result.tensors("logits", f"{level}.logits", loss.logits.detach(), outputs[f"{level}.logits"])
    result.tensors("loss", f"{level}.loss", loss.loss.detach(), outputs[f"{level}.loss"])
    if (per_sample := outputs.get(f"{level}.loss_reduction_none")) is not None:
        tokens = (labels != -100).sum(dim=1)
        ours = loss.sample_loss.detach() / tokens
        result.tensors("loss", f"{level}.loss_reduction_none", ours, per_sample / tokens)
    loss.loss.backward()
    _compare_gradients(case, model, level, result)


def _compare_gradients(case: Case, model: LionForConditionalGeneration, level: str, result: Comparison) -> None:
    """Norm, sum, largest and first entries of each gradient, in units of max(norm, 1e-4 × the largest norm)."""
    references = case.grads.get(level, {})
    largest = max((reference["norm"] for reference in references.values()), default=0.0)
    for key, reference in references.items():
        name = to_ours(key, model.config.adapters)
        assert name is not None, f"{key} has no place"
        gradient = model.get_parameter(name).grad
        assert gradient is not None, f"{name} has no gradient"
        unit = max(reference["norm"], 1e-4 * largest)
        flat = gradient.flatten()
        head = torch.tensor(reference["head"])
        gaps = [
            abs(flat.norm().item() - reference["norm"]),
            abs(flat.abs().max().item() - reference["absmax"]),
            abs(flat.double().sum().item() - reference["sum"]) / len(flat) ** 0.5,
            (flat[: len(head)] - head).abs().max().item(),
        ]
        result.note("gradients", f"{level}.{key}", max(gaps) / unit)


def _compare_generation(case: Case, model: LionForConditionalGeneration, level: str, result: Comparison) -> None:
    for key in [key for key in case.outputs if key.startswith(f"{level}.gen_") and key.endswith(".ids")]:
        run = key.removesuffix(".ids")
        arguments = {k: v for k, v in case.meta[f"{run}.kwargs"].items() if k not in ("top_p", "temperature")}
        ours = model.generate(**case.batch(level, "generate"), **arguments)
        eos = model.config.eos_token_id
        same = up_to_eos(ours, eos) == up_to_eos(case.outputs[key], eos)
        result.note("ids", key, 0.0 if same else float("inf"))
