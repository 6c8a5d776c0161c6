"""RAM equals the reference: every case folder under $LION_GOLDEN (default ../shared/golden), under eager and sdpa."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.models.ram.parity import ATTENTION, GOLDEN, TOLERANCE, find_cases, load_case, observe, wrong_tags

CASES = find_cases() if GOLDEN.is_dir() else []
# Lists of the reference that are no activation of the network.
LISTS = {"class_threshold", "targets"}

pytestmark = pytest.mark.skipif(not CASES, reason=f"no RAM case under {GOLDEN.name} (set LION_GOLDEN)")
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.relative_to(GOLDEN)))
every_attention = pytest.mark.parametrize("attention", ATTENTION)


@every_case
@every_attention
def test_activations_parity(case: Path, attention: str) -> None:
    model, _ = load_case(case, attention)
    expected = load_file(case / "outputs.safetensors")
    seen = observe(model, load_file(case / "inputs.safetensors")["image"], list(expected))
    assert expected.keys() - LISTS <= seen.keys(), "a quantity of the reference is not compared"
    for name in expected.keys() - LISTS:
        torch.testing.assert_close(seen[name], expected[name], atol=TOLERANCE, rtol=0)


@every_case
@every_attention
def test_chunked_head_parity(case: Path, attention: str) -> None:
    model, _ = load_case(case, attention)
    pixels = load_file(case / "inputs.safetensors")["image"]
    expected = load_file(case / "outputs.safetensors")["scores"]
    for tag_chunk in (1, 3, model.config.n_tags):
        torch.testing.assert_close(model.confidences(pixels, tag_chunk), expected, atol=TOLERANCE, rtol=0)


@every_case
@every_attention
def test_tags_parity(case: Path, attention: str) -> None:
    """Compare the tags with the reference, with and without deleted ones, at strict thresholds per tag."""
    model, processor = load_case(case, attention)
    expected = load_file(case / "outputs.safetensors")
    confidences = model.confidences(load_file(case / "inputs.safetensors")["image"])
    torch.testing.assert_close(torch.tensor(processor.thresholds), expected["class_threshold"])
    differing = wrong_tags(case, processor, confidences)
    assert "tags" in differing
    assert not any(differing.values()), differing
    is_selected = confidences > torch.tensor(processor.thresholds)
    assert is_selected.equal(expected["targets"].bool())


@every_case
@every_attention
def test_deleted_tags_parity(case: Path, attention: str) -> None:
    """Check that a head with a part of the tags returns the confidences of the whole head."""
    model, processor = load_case(case, attention)
    expected = load_file(case / "outputs.safetensors")["scores"]
    kept = processor.tag_list[::-2]
    indices = processor.select_tags(kept)
    model.select_tags(indices)
    confidences = model.confidences(load_file(case / "inputs.safetensors")["image"])
    torch.testing.assert_close(confidences, expected[:, indices], atol=TOLERANCE, rtol=0)
