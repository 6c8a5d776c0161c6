"""Tolerance between two computations of the same value. Stored values are compared exactly, without it."""

from typing import Any

ROUNDING: dict[str, Any] = {"atol": 1e-6, "rtol": 1e-5}
"""Tolerance for float32 values that are computed in another order: another batch, chunk, number of threads, cache or
attention kernel.

Sums are then rounded differently, by up to 6e-8 of their terms. The order also depends on the processor's registers.
Results are bitwise equal only with the same operations, threads and alignment of the operands; `models.alignment`
ensures the alignment of weights.
"""
