"""Configurations of composed models hold no path of the machine, so that equal models have equal digests."""

from pathlib import Path

import pytest

from models.lion import LionConfig
from models.ram import RamConfig
from models.tag_encoder import TagEncoderConfig


@pytest.mark.parametrize("config_class", [LionConfig, RamConfig, TagEncoderConfig])
def test_a_saved_configuration_does_not_depend_on_where_its_parts_were(
    config_class: type[LionConfig | RamConfig | TagEncoderConfig], tmp_path: Path
) -> None:
    config = config_class.preset("tiny")
    config.save_pretrained(tmp_path / "plain")
    for name in config_class.sub_configs_defaults:
        if (part := getattr(config, name)) is not None:
            part._name_or_path = f"/somewhere/{name}"
    config.save_pretrained(tmp_path / "loaded")
    saved = [(tmp_path / folder / "config.json").read_text() for folder in ("plain", "loaded")]
    assert saved[0] == saved[1]
    assert "/somewhere" not in str(config.to_dict())
    assert config_class.from_pretrained(tmp_path / "loaded").to_dict() == config.to_dict()
