"""The `tiny_lion` step: an untrained LION with the tiny backbones, from which the first training stages start."""

import dataclasses
from typing import Any, Literal

from pipelines.core import storage
from pipelines.core.copies import local_copy, local_results
from pipelines.core.errors import UserError
from pipelines.core.paths import path_field
from pipelines.core.steps import StepFolder, StepResult, run_step


@dataclasses.dataclass(frozen=True)
class TinyLionConfig:
    """Builds a LION from the tiny backbones: ViT and T5 are pre-trained on the sample world, all other parts are
    untrained."""

    backbones: str | None = path_field("input", None)
    """Folder `backbones/` of a pretrain_tiny step. If empty, the backbones in the repository."""
    visual_input: Literal["all", "qformer", "aggregator"] = "all"
    """Which visual tokens the language model reads. Stage 1 starts from `qformer`, stage 2 from `aggregator`; `all` is
    both."""
    seed: int = 0
    """Seed of the untrained weights; change it to start several trainings differently."""
    out: str = path_field("output", "runs")
    """Folder or URI for the step's folder."""


def tiny_lion(config: TinyLionConfig) -> StepResult:
    """Run the step. Its folder gets `model/`, a `from_pretrained` folder.

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

        folders = (backbones.vision, backbones.language, backbones.tag_encoder)
        with local_results(result) as local:
            make_lion(*folders, local.child("model"), config.seed, visual_input=config.visual_input)
            digest = storage.sha256(local.child("model", "model.safetensors"))
        return {"rows": None, "files": [{"path": "model/model.safetensors", "rows": None, "sha256": digest}]}

    return run_step("tiny_lion", config, config.out, work, {"backbones": folder})
