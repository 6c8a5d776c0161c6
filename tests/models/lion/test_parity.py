"""LION against the tensors that the released code gave, for every case found and both attention implementations."""

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
    if quantity not in result.worst:
        pytest.skip(f"the case records no {quantity}")
    worst = result.worst[quantity]
    assert worst <= TOLERANCE[quantity], f"{result.where[quantity]} differs by {worst:.3g}"


@every_case
def test_parity_covers_the_case(folder: Path) -> None:
    """Every part that the reference recorded under a name of ours was compared, at both levels."""
    case, compared = Case(folder), compare(folder, "sdpa").compared
    assert case.levels
    for level in case.levels:
        assert {f"{level}.loss", f"{level}.logits", f"{level}.encoder_last"} <= compared
        assert {key for key in case.outputs if key.startswith(f"{level}.gen_") and key.endswith(".ids")} <= compared
    recorded = {key for key in case.outputs if key.startswith(("encode.fusion", "encode.qformer", "encode.ln_"))}
    assert recorded <= compared
