"""`tiny_lion` as a step: an untrained LION on the tiny backbones, which the first stages start from."""

import dataclasses
from typing import Any, Literal

from pipelines.core import storage
from pipelines.core.copies import local_copy, local_results
from pipelines.core.errors import UserError
from pipelines.core.paths import path_field
from pipelines.core.steps import StepFolder, StepResult, run_step


@dataclasses.dataclass(frozen=True)
class TinyLionConfig:
    """Puts a LION together from the tiny backbones: its ViT and T5 know the sample world, all between them is new."""

    backbones: str | None = path_field("input", None)
    """`backbones/` of a pretrain_tiny step; empty: the ones that are kept in the repository."""
    visual_input: Literal["all", "qformer", "aggregator"] = "all"
    """What reaches the language model: qformer is what stage 1 starts from, aggregator stage 2."""
    seed: int = 0
    """Seed of the untrained weights."""
    out: str = path_field("output", "runs")
    """The folder or URI under which the result's folder lies."""


def tiny_lion(config: TinyLionConfig) -> StepResult:
    """Run the step: leaves `model/`, a `from_pretrained` folder.

    Raises:
        UserError: a backbone is missing.
    """
    from pipelines.sample_world.backbones.kept import WEIGHTS, kept_backbones

    folder = local_copy(config.backbones or str(WEIGHTS))
    try:
        backbones = kept_backbones(folder)
    except ValueError as error:
        raise UserError(str(error)) from error

    def work(result: StepFolder) -> dict[str, Any]:
        from pipelines.sample_world.backbones.lion import make_lion

        made = (backbones.vision, backbones.language, backbones.tag_encoder)
        with local_results(result) as local:
            make_lion(*made, local.child("model"), config.seed, visual_input=config.visual_input)
            digest = storage.sha256(local.child("model", "model.safetensors"))
        return {"rows": None, "files": [{"path": "model/model.safetensors", "rows": None, "sha256": digest}]}

    return run_step("tiny_lion", config, config.out, work, {"backbones": folder})
