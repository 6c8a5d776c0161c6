"""The order in which samples are seen: a pure function of sizes, ratios, batch size and seed.

Nothing of it depends on the number of workers, and any step's samples can be asked for without those before, so that a
resumed training needs no more than the number of its next step.
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
    """One sample's turn.

    Attributes:
        pool: which pool it is drawn from.
        index: its place in the pool.
        epoch: how often the pool was used up before.
    """

    pool: int
    index: int
    epoch: int


class SampleOrder:
    """Global batches of samples from pools that are mixed by ratio (LION's last stage: image : region = 1 : 1).

    Each pool is an endless stream: one seeded permutation after another, so that a batch may span two epochs of a pool
    and no sample comes twice before all came once. The pools' parts of the first n batches follow the ratios up to
    rounding, for every n.

    Args:
        sizes: samples in each pool.
        ratios: the pools' shares of a batch; absent: by size, which is a plain permutation for one pool.
        batch_size: samples of a global batch.
        seed: another seed, another order.

    Raises:
        ValueError: an empty pool that has a share, or no pool with one.
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
        """Samples of one epoch: as many as all pools with a share hold."""
        return sum(size for size, share in zip(self.sizes, self._shares, strict=True) if share > 0)

    def total_steps(self, epochs: float) -> int:
        """Steps until `epochs` are over. The last batch is smaller where the batch size does not divide them."""
        return -(-round(self.samples_per_epoch * epochs) // self.batch_size)

    def batch(self, step: int, limit: int | None = None) -> list[Draw]:
        """Return the samples of a step, pool by pool within a fixed interleaving.

        Args:
            step: 0 is the first.
            limit: samples of the whole training; the step in which it is reached has fewer.
        """
        first = step * self.batch_size
        last = first + self.batch_size if limit is None else min(first + self.batch_size, limit)
        spans = enumerate(zip(self._positions(first), self._positions(last), strict=True))
        return _interleave([[self._draw(pool, place) for place in range(*span)] for pool, span in spans])

    def _positions(self, samples: int) -> list[int]:
        """How many of the first `samples` come from each pool: they add up, and none falls as `samples` grows."""
        positions, remaining = [], sum(self._shares)
        for share in self._shares:
            # Each pool takes its part of what those before it left: rounding every pool by itself could go backwards.
            taken = int(samples * share / remaining) if remaining else 0
            positions.append(taken)
            samples, remaining = samples - taken, remaining - share
        return positions

    def _draw(self, pool: int, position: int) -> Draw:
        epoch, place = divmod(position, self.sizes[pool])
        known, permutation = self._permutations.get(pool, (-1, np.empty(0)))
        if known != epoch:
            permutation = np.random.default_rng([self.seed, pool, epoch]).permutation(self.sizes[pool])
            self._permutations[pool] = (epoch, permutation)
        return Draw(pool, int(permutation[place]), epoch)


def _interleave(pools: Sequence[Sequence[Draw]]) -> list[Draw]:
    """Spreads each pool evenly over the batch, so that every worker's slice is mixed, too."""
    keyed = [((place + 0.5) / len(pool), number, draw) for number, pool in enumerate(pools)
             for place, draw in enumerate(pool)]  # fmt: skip
    return [draw for _, _, draw in sorted(keyed, key=lambda item: item[:2])]


def split(batch: Sequence[Draw], workers: int, micro_batches: int) -> list[list[list[Draw]]]:
    """A global batch as `[worker][micro-batch][sample]`, in order and as evenly as possible; pieces may be empty."""
    pieces = workers * micro_batches
    cuts = [len(batch) * piece // pieces for piece in range(pieces + 1)]
    slices = [list(batch[low:high]) for low, high in itertools.pairwise(cuts)]
    return [[slices[micro * workers + worker] for micro in range(micro_batches)] for worker in range(workers)]


def held_out(keys: pa.Array | pa.ChunkedArray, fraction: float, seed: int) -> np.ndarray:
    """Which keys belong to the validation part: a boolean per key, equal for equal keys (all samples of one image).

    The choice depends on a key and the seed, so that it stays when others come or go; among few keys at least one is
    chosen where the fraction is above 0, and one is left.
    """
    if not len(keys):
        return np.zeros(0, dtype=bool)
    different = pc.unique(keys)
    digests = (hashlib.blake2b(f"{seed}:{key.as_py()}".encode(), digest_size=8).digest() for key in different)
    places = np.fromiter((int.from_bytes(digest, "big") / 2**64 for digest in digests), np.float64, len(different))
    lowest = places.min() * (1 + 1e-9) if fraction > 0 else 0.0
    limit = min(max(fraction, lowest), places.max())
    return (places < limit)[pc.index_in(keys, value_set=different).to_numpy()]
