"""Every bad input of `tests.bad_inputs` is quarantined with its reason and does not stop the run (P2)."""

from pathlib import Path

import pytest

from pipelines.precompute import precompute
from tests.bad_inputs import cases, expected_annotations, make_config, outcomes, write_inputs


@pytest.mark.usefixtures("ray_cluster")
def test_every_bad_input_is_quarantined_with_its_reason_and_every_odd_one_kept(tmp_path: Path) -> None:
    result = precompute(make_config(tmp_path, write_inputs(tmp_path)))
    images, annotations = outcomes(result.path)
    assert images == {case.name: case.expected for case in cases()}
    assert annotations == expected_annotations()
    assert result.summary["rows_in"] == result.summary["rows"] + result.summary["quarantined"]
    assert len([case for case in cases() if case.expected != "kept"]) >= 15
