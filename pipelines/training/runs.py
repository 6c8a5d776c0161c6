"""The training steps: configuration in, result folder out."""

from pipelines import storage
from pipelines.errors import UserError
from pipelines.registry import Registry
from pipelines.steps import StepFolder, StepResult, fingerprint, run_step
from pipelines.training.config import TrainTagEncoderConfig
from pipelines.training.finish import Training, train_and_register


def train_tag_encoder(config: TrainTagEncoderConfig) -> StepResult:
    """Trains, saves and registers the tag encoder; a finished step is skipped.

    Raises:
        UserError: data or base are not there or unfit, MLflow does not answer, or the training cannot go well.
    """
    from pipelines.training.tag_encoder import PRESETS, TagEncoderTask, start_folder

    registry = Registry(config.registry, config.out)
    start, parent = start_folder(config.base), {}
    if start.startswith("models:"):
        found = registry.lookup(start)
        start, parent = found.folder, {"parent.base": str(found)}
    inputs = {"data": config.data} | ({} if start in PRESETS else {"base": start})
    for path in inputs.values():
        if not storage.exists(path):
            raise UserError(f"{path} does not exist; check --data and --base.")

    def work(folder: StepFolder) -> dict[str, object]:
        digests = {name: fingerprint(path) for name, path in inputs.items()}
        task = TagEncoderTask(config, storage.absolute(config.data), start, digests.get("base", start))
        lineage = {f"digest.{name}": digest for name, digest in digests.items()} | parent
        return train_and_register(Training(task, config, "tag_encoder", config.name, registry, lineage), folder)

    return run_step("train_tag_encoder", config, config.out, work, inputs)
