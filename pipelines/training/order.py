"""The order of the training samples: a pure function of pool sizes, ratios, batch size and seed.

It does not depend on the number of workers. The samples of a step are computed without the steps before it, so that a
resumed training needs only the number of its next step.
"""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class Draw:
    """One draw of a sample.

    Attributes:
        pool: number of the pool.
        index: position of the sample in the pool.
        epoch: number of times that the whole pool was drawn before.
    """

    pool: int
    index: int
    epoch: int


class SampleOrder:
    """Global batches of samples from pools that are mixed by ratio (LION's last stage: image : region = 1 : 1).

    Each pool is an endless stream of seeded permutations: a batch may span two epochs of a pool, and no sample comes
    twice before all came once. For every n, the shares of the pools in the first n batches follow the ratios up to
    rounding.

    Args:
        sizes: number of samples in each pool.
        ratios: the pools' shares of a batch; None: in proportion to their sizes.
        batch_size: number of samples of a global batch.
        seed: seed of the permutations.

    Raises:
        ValueError: a pool with a share is empty, no pool has a share, or the batch size is below 1.
    """

    def __init__(self, sizes: Sequence[int], ratios: Sequence[float] | None, batch_size: int, seed: int) -> None:
        shares = [float(size) for size in sizes] if ratios is None else [float(ratio) for ratio in ratios]
        if len(shares) != len(sizes) or min(shares, default=0) < 0 or sum(shares) <= 0:
            raise ValueError(f"{len(sizes)} pools need as many ratios, none below 0 and not all 0, but have {shares}.")
        for pool, (size, share) in enumerate(zip(sizes, shares, strict=True)):
            if share > 0 and size == 0:
                raise ValueError(f"Pool {pool} has a share of {share:g} in each batch, but no samples.")
        if batch_size < 1:
            raise ValueError(f"The batch size is {batch_size}; it must be at least 1.")
        self.sizes = list(sizes)
        self.batch_size = batch_size
        self.seed = seed
        self._shares = [Fraction(share) for share in shares]
        self._permutations: dict[int, tuple[int, np.ndarray]] = {}

    @property
    def samples_per_epoch(self) -> int:
        """Number of samples of one epoch: the sum of the sizes of all pools that have a share."""
        return sum(size for size, share in zip(self.sizes, self._shares, strict=True) if share > 0)

    def total_steps(self, epochs: float) -> int:
        """Return the number of steps of `epochs`; the last batch may be smaller than the others."""
        return -(-round(self.samples_per_epoch * epochs) // self.batch_size)

    def batch(self, step: int, limit: int | None = None) -> list[Draw]:
        """Return the samples of a step, with the pools interleaved.

        Args:
            step: the number of the step, from 0.
            limit: number of samples of the whole training; the step that reaches it is smaller.
        """
        first = step * self.batch_size
        last = first + self.batch_size if limit is None else min(first + self.batch_size, limit)
        spans = enumerate(zip(self._positions(first), self._positions(last), strict=True))
        return _interleave([[self._draw(pool, position) for position in range(*span)] for pool, span in spans])

    def _positions(self, samples: int) -> list[int]:
        """Return how many of the first `samples` samples come from each pool.

        The numbers add up to `samples`, and none of them falls as `samples` grows.
        """
        positions, remaining = [], sum(self._shares)
        for share in self._shares:
            # Each pool takes its part of the rest that earlier pools left. If every pool were rounded separately, the
            # position of one could fall from one step to the next.
            taken = int(samples * share / remaining) if remaining else 0
            positions.append(taken)
            samples, remaining = samples - taken, remaining - share
        return positions

    def _draw(self, pool: int, position: int) -> Draw:
        epoch, offset = divmod(position, self.sizes[pool])
        cached_epoch, permutation = self._permutations.get(pool, (-1, np.empty(0)))
        if cached_epoch != epoch:
            permutation = np.random.default_rng([self.seed, pool, epoch]).permutation(self.sizes[pool])
            self._permutations[pool] = (epoch, permutation)
        return Draw(pool, int(permutation[offset]), epoch)


def _interleave(pools: Sequence[Sequence[Draw]]) -> list[Draw]:
    """Return one list in which each pool is spread evenly, so that the slice of every worker is mixed, too."""
    keyed = [((index + 0.5) / len(pool), number, draw) for number, pool in enumerate(pools)
             for index, draw in enumerate(pool)]  # fmt: skip
    return [draw for _, _, draw in sorted(keyed, key=lambda item: item[:2])]


def split(batch: Sequence[Draw], workers: int, micro_batches: int) -> list[list[list[Draw]]]:
    """Return a global batch as `[worker][micro-batch][sample]`, in order and split evenly; pieces may be empty."""
    pieces = workers * micro_batches
    cuts = [len(batch) * piece // pieces for piece in range(pieces + 1)]
    slices = [list(batch[low:high]) for low, high in itertools.pairwise(cuts)]
    return [[slices[micro * workers + worker] for micro in range(micro_batches)] for worker in range(workers)]


def held_out(keys: pa.Array | pa.ChunkedArray, fraction: float, seed: int) -> np.ndarray:
    """Return for each key whether it is in the validation part, (keys,) bool, the same for equal keys.

    The choice is made from a hash of seed and key, so that it stays the same when other keys are added or removed. With
    a fraction above 0, at least one key is chosen, and at least one is left for training.

    Args:
        keys: one key for each sample; samples of the same image have the same key.
        fraction: share of the different keys that is chosen, in [0, 1].
        seed: another seed chooses other keys.
    """
    if not len(keys):
        return np.zeros(0, dtype=bool)
    different = pc.unique(keys)
    digests = (hashlib.blake2b(f"{seed}:{key.as_py()}".encode(), digest_size=8).digest() for key in different)
    positions = np.fromiter((int.from_bytes(digest, "big") / 2**64 for digest in digests), np.float64, len(different))
    lowest = positions.min() * (1 + 1e-9) if fraction > 0 else 0.0
    limit = min(max(fraction, lowest), positions.max())
    return (positions < limit)[pc.index_in(keys, value_set=different).to_numpy()]
