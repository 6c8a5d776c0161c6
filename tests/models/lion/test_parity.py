"""LION against the tensors that the released code gave, for every case found and both attention implementations."""

import math
from pathlib import Path

import pytest

from tests.models.lion.golden import ATTENTION, TOLERANCE, Case, compare, golden_root, lion_cases

CASES = lion_cases()
every_case = pytest.mark.parametrize("folder", CASES, ids=[str(c.relative_to(golden_root())) for c in CASES])
every_attention = pytest.mark.parametrize("attention", ATTENTION)
pytestmark = pytest.mark.skipif(not CASES, reason="needs ../shared/golden or $LION_GOLDEN")


@every_attention
@every_case
@pytest.mark.parametrize("quantity", TOLERANCE)
def test_parity_with_the_released_code(folder: Path, attention: str, quantity: str) -> None:
    result = compare(folder, attention)
    worst = result.worst[quantity]
    assert math.isfinite(worst) or quantity == "ids"
    assert worst <= TOLERANCE[quantity], f"{result.where[quantity]} differs by {worst:.3g}"


@every_case
def test_parity_compares_everything_recorded(folder: Path) -> None:
    """What the reference recorded and we do not compare is known by name."""
    recorded = {key for key in Case(folder).outputs if not key.startswith("tok.")}
    uncompared = {key for key in recorded - compare(folder, "sdpa").compared if ".gen_" not in key}
    assert {key.split(".")[-1] for key in uncompared} <= {"vit_n_intermediate", "atts_t5", "encoder_mask", "labels"}
