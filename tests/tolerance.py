"""How far two computations of one value may be apart. What is stored is compared by bits and needs none of this."""

from typing import Any

ROUNDING: dict[str, Any] = {"atol": 1e-6, "rtol": 1e-5}
"""For float32 that is computed in another order: another batch, chunk, thread count, cache or attention kernel.

Each sum then rounds elsewhere, by up to 6e-8 of its terms, and processors with wider registers add in an order of their
own. Bits are equal only where the operations, the threads and the alignment of the operands are the same, which
`models.alignment` sees to for weights.
"""
