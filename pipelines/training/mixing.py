"""Which samples a stage draws, and how often: levels or tasks by ratio, data sets within them by weight."""

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
class Pool:
    """Samples that are drawn alike.

    Attributes:
        name: the level or task, with weights also the data set.
        rows: their numbers in the instructions table.
        ratio: the pool's share of a batch, in proportion to the others'.
    """

    name: str
    rows: np.ndarray
    ratio: float


@dataclass(frozen=True)
class Mixture:
    """What a stage trains on, and the rows that it is validated on."""

    pools: tuple[Pool, ...]
    validation: np.ndarray


@dataclass(frozen=True)
class SetShare:
    """A data set's part of a training.

    Attributes:
        pool: where it is drawn from.
        name: the data set: the beginning of its samples' ids.
        samples: how many it has for training.
        draws: how many samples of the training are its.
    """

    pool: str
    name: str
    samples: int
    draws: float

    @property
    def epochs(self) -> float:
        """How often the training sees each of its samples."""
        return self.draws / self.samples

    def __str__(self) -> str:
        return f"{self.pool}: {self.name}: {self.samples:,} samples, {self.draws:,.0f} draws = {self.epochs:.2f} epochs"


def set_names(table: pa.Table) -> np.ndarray:
    """Return the data set of each sample: its id up to the first colon."""
    return np.asarray(pc.replace_substring_regex(table["sample_id"], "(?s):.*", "").to_numpy(zero_copy_only=False))


def make_mixture(table: pa.Table, source: str, settings: TrainStageConfig) -> Mixture:
    """Return the pools of a stage and its validation samples.

    Args:
        table: of the instructions, at least `COLUMNS`.
        source: what it is called in messages.
        settings: ratios, weights, and what is held out.

    Raises:
        UserError: a part of the mix has no samples, all of them are held out, or a weight names no data set.
    """
    out = held_out(table["image_id"], settings.validation_fraction, settings.held_out_seed)
    sets = set_names(table) if settings.weights else None
    if sets is not None and (unknown := set(settings.weights) - set(sets)):
        raise UserError(f"weights names {sorted(unknown)}, but the data sets of {source} are {sorted(set(sets))}.")
    never = np.zeros(len(out), dtype=bool)
    if sets is not None:
        never = np.isin(sets, [name for name, weight in settings.weights.items() if weight == 0])
    pools: list[Pool] = []
    kept = []
    for name, ratio in settings.ratios.items():
        same = pc.equal(table["level" if name in LEVELS else "task"], name)
        belongs = same.to_numpy(zero_copy_only=False) & ~never
        if not belongs.any():
            found = sorted(
                {str(value) for column in ("level", "task") for value in pc.unique(table[column]).to_pylist()}
            )
            raise UserError(f"{source} has no {name!r} samples to train on; its levels and tasks are {found}.")
        rows = np.flatnonzero(belongs & ~out)
        if not len(rows):
            raise UserError(f"All {name!r} samples are held out; lower validation_fraction or add images.")
        kept.append(np.flatnonzero(belongs & out))
        pools += [Pool(name, rows, ratio)] if sets is None else _by_set(name, rows, ratio, sets[rows], settings.weights)
    validation = np.unique(np.concatenate(kept))
    chosen = np.random.default_rng(settings.held_out_seed).permutation(len(validation))
    return Mixture(tuple(pools), validation[chosen[: settings.validation_samples]])


def _by_set(
    name: str, rows: np.ndarray, ratio: float, sets: np.ndarray, weights: Mapping[str, float]
) -> Iterator[Pool]:
    """Return a part of the mix as a pool for each data set: its share is its size times its weight."""
    parts = {str(one): rows[sets == one] for one in sorted(set(sets))}
    weighed = {one: len(part) * weights.get(one, 1.0) for one, part in parts.items()}
    for one, part in parts.items():
        yield Pool(f"{name}/{one}", part, ratio * weighed[one] / sum(weighed.values()))


def effective_epochs(mixture: Mixture, table: pa.Table, settings: TrainStageConfig) -> Sequence[SetShare]:
    """How often a training sees the samples of each data set.

    Args:
        mixture: of the table.
        table: of the instructions.
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
