"""The caption nearest the centroid, and the folders and names that a sentence encoder is loaded from."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.core.errors import UserError
from pipelines.precompute.captioner import pick_caption, resolve_encoder


def unit(*rows: tuple[float, float]) -> np.ndarray:
    """Return the rows as vectors of length 1."""
    vectors = np.array(rows)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_caption_in_the_middle_is_picked() -> None:
    pick = pick_caption(["left", "middle", "right"], unit((1, 0), (1, 1), (0, 1)))
    assert (pick.caption, pick.index) == ("middle", 1)
    assert pick.similarity == pytest.approx(1.0)


def test_of_equally_near_captions_the_first_is_picked() -> None:
    pick = pick_caption(["first", "same"], unit((3, 4), (3, 4)))
    assert (pick.index, pick.similarity) == (0, pytest.approx(1.0))


def test_opposite_captions_still_give_a_pick() -> None:
    assert pick_caption(["left", "right"], unit((1, 0), (-1, 0))).index in (0, 1)


def test_the_packaged_encoder_is_the_default() -> None:
    assert (Path(resolve_encoder("")) / "modules.json").is_file()
    assert resolve_encoder(resolve_encoder("")) == resolve_encoder("")


@pytest.mark.parametrize("path", ["no/such-model", "/no/such/folder", "a/b/c"])
def test_a_missing_encoder_is_refused_without_a_download(path: str) -> None:
    with pytest.raises(UserError, match=r"captioner\.path"):
        resolve_encoder(path)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"modules\.json"):
        resolve_encoder(str(tmp_path))
