"""Print the tables of docs/training.md that follow from shapes: ``python -m tests.training_tables``.

They compare the size of checkpoints with the size of all weights, and estimate the memory of each recipe's worker. No
weights are loaded: the models are on PyTorch's meta device.
"""

import tempfile
from pathlib import Path

from jobs.cli import parse
from models.lion import LionConfig
from pipelines.training.config import TrainStageConfig
from pipelines.training.memory import GIB, estimate, unique
from pipelines.training.stage import StageTask

ROOT = Path(__file__).resolve().parents[1]
MIB = 2**20
CHECKPOINTS = ("LION", "stage", "weights", "trained", "all in fp32", "`weights.safetensors`", "`optimizer.safetensors`",
               "trained share")  # fmt: skip
MEMORY = ("recipe", "GPUs", "ZeRO", "micro-batch", "weights", "gradients, optimizer, buckets", "activations", "GiB")


def head(names: tuple[str, ...]) -> list[str]:
    """Return the first two lines of a table."""
    return [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]


def task_of(settings: TrainStageConfig, start: str) -> StageTask:
    """Return the task of a configuration, for a LION whose folder has a configuration only."""
    return StageTask(settings, "", "", start, None, ())


def checkpoint_rows(size: str, start: str) -> list[str]:
    """Return a row per stage: all parameters, trained parameters, and the bytes of both."""
    rows = []
    for stage in (1, 2, 3):
        settings = TrainStageConfig("", "", start, stage=stage)
        parameters = unique(task_of(settings, start).outline().parameters())
        every = sum(parameter.numel() for parameter in parameters)
        trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
        unit, name = (GIB, "GiB") if every > 10**9 else (MIB, "MiB")
        sizes = " | ".join(f"{size / unit:.3g} {name}" for size in (4 * every, 4 * trained, 8 * trained))
        rows.append(f"| {size} | {stage} | {every / 1e6:,.1f} M | {trained / 1e6:,.1f} M | {sizes} | "
                    f"{100 * trained / every:.1f} % |")  # fmt: skip
    return rows


def memory_row(recipe: Path, start: str) -> str:
    """Return the row of a recipe: the parts of its memory estimate."""
    arguments = ["--config", str(recipe), "--data", "", "--tagged", "", "--parents", start]
    settings = parse("train_stage", TrainStageConfig, arguments)
    memory = estimate(task_of(settings, start), settings.loop, settings.launch)
    weights = sum(size for name, size in memory.state.items() if "weights in" in name)
    rest = sum(memory.state.values()) - weights
    sizes = " | ".join(f"{size / GIB:.1f}" for size in (weights, rest, memory.activations, memory.total))
    loop = settings.loop
    return f"| {recipe.stem} | {settings.launch.workers} | {loop.zero_stage} | {loop.micro_batch_size} | {sizes} |"


def main() -> None:
    """Print both tables."""
    lines = head(CHECKPOINTS)
    with tempfile.TemporaryDirectory() as root:
        for size in ("tiny", "xl"):
            start = str(Path(root, size))
            LionConfig.preset(size).save_pretrained(start)
            lines += checkpoint_rows(size, start)
        lines += ["", *head(MEMORY)]
        recipes = sorted(ROOT.glob("jobs/recipes/flan_t5_xl_*.yaml"), key=lambda path: (len(path.stem), path.stem))
        lines += [memory_row(recipe, start) for recipe in recipes]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
