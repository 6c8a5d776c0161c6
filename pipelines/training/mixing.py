"""The mix of a stage's samples: levels or tasks by ratio, data sets within them by weight."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core.errors import UserError
from pipelines.core.tables import LEVELS
from pipelines.training.config import TrainStageConfig
from pipelines.training.order import SampleOrder, held_out

COLUMNS = ("sample_id", "image_id", "task", "level")


@dataclass(frozen=True)
class SamplePool:
    """Samples that are drawn with the same frequency.

    Attributes:
        name: the level or task; with weights, also the data set.
        rows: row numbers in the instructions table.
        ratio: the pool's share of a batch, relative to the ratios of the other pools.
    """

    name: str
    rows: np.ndarray
    ratio: float


@dataclass(frozen=True)
class Mixture:
    """The training pools of a stage, and the rows of its validation samples."""

    pools: tuple[SamplePool, ...]
    validation: np.ndarray


@dataclass(frozen=True)
class SetShare:
    """The share of one data set in a training.

    Attributes:
        pool: the level or task from which it is drawn.
        name: the data set's name, with which the ids of its samples begin.
        samples: number of its training samples.
        draws: expected number of its samples in the whole training.
    """

    pool: str
    name: str
    samples: int
    draws: float

    @property
    def epochs(self) -> float:
        """The expected number of times that the training sees each of its samples."""
        return self.draws / self.samples

    def __str__(self) -> str:
        return f"{self.pool}: {self.name}: {self.samples:,} samples, {self.draws:,.0f} draws = {self.epochs:.2f} epochs"


def set_names(table: pa.Table) -> np.ndarray:
    """Return the data set of each sample: its id up to the first colon."""
    return np.asarray(pc.replace_substring_regex(table["sample_id"], "(?s):.*", "").to_numpy(zero_copy_only=False))


def make_mixture(table: pa.Table, source: str, settings: TrainStageConfig) -> Mixture:
    """Return the pools of a stage and its validation samples.

    Args:
        table: the instructions table with at least `COLUMNS`.
        source: the table's path, for messages.
        settings: ratios, weights, and the held-out part.

    Raises:
        UserError: a part of the mix has no samples, all of them are held out, or a weight names an unknown data set.
    """
    out = held_out(table["image_id"], settings.validation_fraction, settings.held_out_seed)
    sets = set_names(table) if settings.weights else None
    if sets is not None and (unknown := set(settings.weights) - set(sets)):
        raise UserError(f"weights names {sorted(unknown)}, but the data sets of {source} are {sorted(set(sets))}.")
    never = np.zeros(len(out), dtype=bool)
    if sets is not None:
        never = np.isin(sets, [name for name, weight in settings.weights.items() if weight == 0])
    pools: list[SamplePool] = []
    kept = []
    for name, ratio in settings.ratios.items():
        same = pc.equal(table["level" if name in LEVELS else "task"], name)
        belongs = same.to_numpy(zero_copy_only=False) & ~never
        if not belongs.any():
            names = sorted(
                {str(value) for column in ("level", "task") for value in pc.unique(table[column]).to_pylist()}
            )
            raise UserError(f"{source} has no {name!r} samples to train on; its levels and tasks are {names}.")
        rows = np.flatnonzero(belongs & ~out)
        if not len(rows):
            raise UserError(f"All {name!r} samples of {source} are held out; lower validation_fraction or add images.")
        kept.append(np.flatnonzero(belongs & out))
        if sets is None:
            pools.append(SamplePool(name, rows, ratio))
        else:
            pools += _by_set(name, rows, ratio, sets[rows], settings.weights)
    validation = np.unique(np.concatenate(kept))
    chosen = np.random.default_rng(settings.held_out_seed).permutation(len(validation))
    return Mixture(tuple(pools), validation[chosen[: settings.validation_samples]])


def _by_set(
    name: str, rows: np.ndarray, ratio: float, sets: np.ndarray, weights: Mapping[str, float]
) -> Iterator[SamplePool]:
    """Yield a pool for each data set of a level or task; the share of a data set is its size times its weight."""
    parts = {str(data_set): rows[sets == data_set] for data_set in sorted(set(sets))}
    weighed = {data_set: len(part) * weights.get(data_set, 1.0) for data_set, part in parts.items()}
    for data_set, part in parts.items():
        yield SamplePool(f"{name}/{data_set}", part, ratio * weighed[data_set] / sum(weighed.values()))


def effective_epochs(mixture: Mixture, table: pa.Table, settings: TrainStageConfig) -> Sequence[SetShare]:
    """Return for each data set how often a training sees its samples.

    Args:
        mixture: the mix of the table.
        table: the instructions table.
        settings: steps or epochs, and the batch size.
    """
    sizes = [len(pool.rows) for pool in mixture.pools]
    order = SampleOrder(sizes, [pool.ratio for pool in mixture.pools], settings.loop.batch_size, settings.loop.seed)
    loop = settings.loop
    total = loop.steps * loop.batch_size if loop.steps else order.samples_per_epoch * loop.epochs
    whole = sum(pool.ratio for pool in mixture.pools)
    sets = set_names(table)
    shares = []
    for pool in mixture.pools:
        names, counts = np.unique(sets[pool.rows].astype(str), return_counts=True)
        drawn = total * pool.ratio / whole
        shares += [
            SetShare(pool.name.split("/")[0], str(name), int(count), drawn * count / len(pool.rows))
            for name, count in zip(names, counts, strict=True)
        ]
    return shares
