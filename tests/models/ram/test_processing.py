"""RAM's processor: pixels, tags of confidences, and the lists as files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.ram import RamProcessor
from models.ram.processing import read_tag_list, read_thresholds
from models.tags import TagRule

TAGS = ["ant", "bee", "cat", "dog"]
THRESHOLDS = [0.5, 0.7, 1.0, 0.65]


@pytest.fixture
def processor() -> RamProcessor:
    return RamProcessor(TAGS, THRESHOLDS, image_size=48)


def test_pixels_are_resized_and_normalized_like_imagenet(processor: RamProcessor) -> None:
    pixels = processor([Image.new("RGB", (20, 31), (255, 0, 128))]).pixel_values
    assert pixels.shape == (1, 3, 48, 48)
    expected = (torch.tensor([1.0, 0.0, 128 / 255]) - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor(
        [0.229, 0.224, 0.225]
    )
    torch.testing.assert_close(pixels[0], expected.view(3, 1, 1).expand(3, 48, 48))


def test_resizing_is_bilinear_over_the_whole_image(processor: RamProcessor) -> None:
    image = Image.effect_noise((100, 60), 80).convert("RGB")
    expected = np.asarray(image.resize((48, 48), Image.Resampling.BILINEAR))[..., 1] / 255
    green = processor(image).pixel_values[0, 1] * 0.224 + 0.456
    torch.testing.assert_close(green, torch.tensor(expected, dtype=torch.float32), atol=1e-6, rtol=0)


def test_other_objects_than_images_are_refused(processor: RamProcessor) -> None:
    with pytest.raises(ValueError, match="PIL images, not ndarray"):
        processor([np.zeros((4, 4, 3), np.uint8)])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="empty"):
        processor([])


def test_tags_fall_by_confidence_above_the_floor(processor: RamProcessor) -> None:
    rows = processor.tags(torch.tensor([[0.2, 0.9, 0.05, 0.9], [0.0, 0.0, 0.0, 0.01]]))
    assert [tag for tag, _ in rows[0]] == ["bee", "dog", "ant"]
    assert rows[0][0][1] == pytest.approx(0.9)
    assert rows[1] == []


def test_thresholds_are_strict_per_tag_or_one_for_all(processor: RamProcessor) -> None:
    confidences = torch.tensor([[0.5, 0.71, 1.0, 0.66]])
    assert [t for t, _ in processor.tags(confidences, threshold="per_tag")[0]] == ["bee", "dog"]
    assert [t for t, _ in processor.tags(confidences, threshold=0.5)[0]] == ["cat", "bee", "dog"]
    assert [t for t, _ in processor.tags(confidences, threshold=0.01)[0]] == ["cat", "bee", "dog", "ant"]


def test_top_k_and_exclusion(processor: RamProcessor) -> None:
    confidences = torch.tensor([[0.5, 0.71, 0.9, 0.66]])
    assert [t for t, _ in processor.tags(confidences, top_k=1, exclude=["cat"])[0]] == ["bee"]


def test_selected_tags_take_their_thresholds_along(processor: RamProcessor) -> None:
    assert processor.select_tags(["dog", "ant"]) == [3, 0]
    assert processor.tag_list == ["dog", "ant"]
    assert processor.thresholds == [0.65, 0.5]


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda p: p.tags(torch.zeros(1, 3)), "not of the same folder"),
        (lambda p: p.tags(torch.zeros(4)), "not of the same folder"),
        (lambda p: p.tags(torch.zeros(1, 4), threshold="high"), "'per_tag' or a number"),
        (lambda p: p.tags(torch.zeros(1, 4), top_k=0), "at least 1"),
        (lambda p: p.tags(torch.zeros(1, 4), exclude=["cow"]), "no 'cow'"),
        (lambda p: p.select_tags(["cow"]), "no 'cow'"),
        (lambda p: p.select_tags([]), "has no tag"),
        (lambda p: RamProcessor([]), "has no tag"),
        (lambda p: RamProcessor(["a", "a"]), "repeated"),
        (lambda p: RamProcessor(["a", " "]), "blank"),
        (lambda p: RamProcessor(["a", "b"], [0.5]), "1 thresholds for 2 tags"),
        (lambda p: RamProcessor(["a"], [1.5]), "between 0 and 1"),
    ],
)
def test_wrong_values_are_refused(processor: RamProcessor, call: object, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        call(processor)  # type: ignore[operator]


def test_the_lists_are_text_files_in_the_folder_of_the_weights(processor: RamProcessor, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path)
    assert (tmp_path / "ram_tag_list.txt").read_text().splitlines() == TAGS
    assert (tmp_path / "ram_tag_list_threshold.txt").read_text().split() == ["0.5", "0.7", "1.0", "0.65"]
    loaded = RamProcessor.from_pretrained(tmp_path)
    assert (loaded.tag_list, loaded.thresholds, loaded.image_size) == (TAGS, THRESHOLDS, 48)
    # The files are the truth: an edited threshold counts.
    (tmp_path / "ram_tag_list_threshold.txt").write_text("0.1\n0.2\n0.3\n0.4")
    assert RamProcessor.from_pretrained(tmp_path).thresholds == [0.1, 0.2, 0.3, 0.4]


def test_wrong_list_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("ant\n\nbee\n")
    with pytest.raises(ValueError, match="tag 2: '' is blank"):
        read_tag_list(path)
    path.write_text("0.5\nhigh\n")
    with pytest.raises(ValueError, match="one number per line"):
        read_thresholds(path, 2)


def test_the_released_lists_are_read(shared: Path) -> None:
    tags = read_tag_list(shared / "data/ram/ram_tag_list.txt")
    assert len(tags) == 4585
    thresholds = read_thresholds(shared / "data/ram/ram_tag_list_threshold.txt", len(tags))
    assert sum(value == 0.65 for value in thresholds) == 3414
    assert sum(value == 1.0 for value in thresholds) == 10


def test_tags_come_by_confidence_or_in_the_lists_order(processor: RamProcessor) -> None:
    confidences = torch.tensor([[0.9, 0.95, 0.99, 0.97]])
    assert [tag for tag, _ in processor.tags(confidences)[0]] == ["cat", "dog", "bee", "ant"]
    assert [tag for tag, _ in processor.tags(confidences, order="list")[0]] == ["ant", "bee", "cat", "dog"]
    assert [tag for tag, _ in processor.tags(confidences, order="list", top_k=2)[0]] == ["cat", "dog"]


def test_the_rule_selects_the_tags_of_the_processor(processor: RamProcessor) -> None:
    """Compare tags that are stored above the floor and selected later with tags that are selected directly."""
    confidences = torch.rand(6, 4, generator=torch.Generator().manual_seed(0))
    confidences[0] = torch.tensor(THRESHOLDS)
    for order in ("list", "confidence"):
        rule = TagRule(4, "per_tag", order, processor.thresholds_by_tag)
        stored = processor.tags(confidences, floor=0.0)
        assert [rule.select(tags) for tags in stored] == processor.tags(confidences, threshold="per_tag", order=order)
