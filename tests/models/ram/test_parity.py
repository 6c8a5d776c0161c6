"""RAM equals the reference: every case folder under $LION_GOLDEN (default ../shared/golden), under eager and sdpa."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.models.ram.parity import ATTENTION, GOLDEN, find_cases, load_case, observe, read_meta

CASES = find_cases() if GOLDEN.is_dir() else []
ACTIVATIONS = 2e-5
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
        torch.testing.assert_close(seen[name], expected[name], atol=ACTIVATIONS, rtol=0)


@every_case
@every_attention
def test_chunked_head_parity(case: Path, attention: str) -> None:
    model, _ = load_case(case, attention)
    pixels = load_file(case / "inputs.safetensors")["image"]
    expected = load_file(case / "outputs.safetensors")["scores"]
    for tag_chunk in (1, 3, model.config.n_tags):
        torch.testing.assert_close(model.confidences(pixels, tag_chunk), expected, atol=ACTIVATIONS, rtol=0)


@every_case
@every_attention
def test_tags_parity(case: Path, attention: str) -> None:
    """The very tags of the reference, whose per-tag threshold is strict and whose order is the list's."""
    model, processor = load_case(case, attention)
    meta, expected = read_meta(case), load_file(case / "outputs.safetensors")
    confidences = model.confidences(load_file(case / "inputs.safetensors")["image"])
    torch.testing.assert_close(torch.tensor(processor.thresholds), expected["class_threshold"])
    exclusions = {"tags": []} | {
        key: [meta["tag_list"][int(index)] for index in re.findall(r"\d+", key)]
        for key in meta
        if re.fullmatch(r"tags_deleted(_\d+)+", key)
    }
    for key, exclude in exclusions.items():
        found = processor.tags(confidences, threshold="per_tag", exclude=exclude)
        in_list_order = [sorted((tag for tag, _ in row), key=processor.tag_list.index) for row in found]
        assert [" | ".join(row) for row in in_list_order] == meta[key]
    by_target = [[tag for tag, on in zip(processor.tag_list, row, strict=True) if on] for row in expected["targets"]]
    assert by_target == [row.split(" | ") for row in meta["tags"]]


@every_case
@every_attention
def test_deleted_tags_parity(case: Path, attention: str) -> None:
    """A head that keeps some of the tags gives them the confidences that the whole head does."""
    model, processor = load_case(case, attention)
    expected = load_file(case / "outputs.safetensors")["scores"]
    kept = processor.tag_list[::-2]
    indices = processor.select_tags(kept)
    model.select_tags(indices)
    confidences = model.confidences(load_file(case / "inputs.safetensors")["image"])
    torch.testing.assert_close(confidences, expected[:, indices], atol=ACTIVATIONS, rtol=0)
