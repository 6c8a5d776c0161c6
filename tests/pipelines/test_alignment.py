"""Whoever promises equal outputs (P1, P3, P8) computes with aligned weights, whatever file they come from."""

from pathlib import Path
from typing import Any

import mlflow.pyfunc
from torch import nn

from models.alignment import ALIGNMENT
from pipelines.inference.answerer import Answerer, AnswererSettings
from pipelines.inference.decoding import DecodingConfig, resolve_decoding
from pipelines.precompute.captioner import Captioner
from pipelines.precompute.config import TaggerConfig
from pipelines.precompute.ram import RamTagger
from pipelines.training.tag_encoder import TagEncoderTask
from tests.pipelines.precompute.worlds import save_tiny_ram
from tests.pipelines.training import conftest as drawn
from tests.pipelines.training.conftest import World
from tests.pipelines.training.test_loop import encoder_task, run

world, lion, tag_encoder = drawn.world, drawn.lion, drawn.tag_encoder  # fixtures


def unaligned(model: nn.Module) -> list[str]:
    """The names of the weights that do not start at a multiple of `ALIGNMENT`."""
    return [name for name, value in model.state_dict().items() if value.data_ptr() % ALIGNMENT]


def test_files_give_weights_that_are_not_aligned(tag_encoder: str) -> None:
    """Otherwise the other tests here say nothing."""
    from models.tag_encoder import TagEncoder

    assert unaligned(TagEncoder.from_pretrained(tag_encoder))


def test_the_tagger_and_the_captioner_are_aligned(tmp_path: Path) -> None:
    tagger = RamTagger(TaggerConfig(path=str(save_tiny_ram(tmp_path))))
    tagger.prepare()
    tagger.setup("cpu", 1, "fp32")
    assert not unaligned(tagger.model)
    assert not unaligned(Captioner("", 8, "cpu").encoder)


def test_the_model_that_answers_an_evaluation_or_a_request_is_aligned(lion: str) -> None:
    decoding = resolve_decoding(lion, DecodingConfig(), 1)
    settings = AnswererSettings(lion, "v", {"vqa": 4}, decoding, 4, "fp32", on_gpu=False, threads=1)
    assert not unaligned(Answerer(settings).model)


def test_a_served_tag_encoder_is_aligned(tag_encoder: str) -> None:
    from pipelines.inference.serving.tag_encoder import ServedTagEncoder

    served = ServedTagEncoder()
    served.load_context(mlflow.pyfunc.PythonModelContext({"model": tag_encoder}, {}))
    assert not unaligned(served.encoder)


class Watched(TagEncoderTask):
    """Notes which weights of the model that it trains are not aligned."""

    def forward(self, model: Any, batch: Any) -> Any:
        self.__dict__.setdefault("unaligned", set()).update(unaligned(model.module))
        return super().forward(model, batch)


def test_a_training_is_aligned_at_its_start_and_when_it_goes_on(world: World, tag_encoder: str, tmp_path: Path) -> None:
    task = encoder_task(world, tag_encoder)
    for steps in (2, 3):
        watched = Watched(task.settings, task.table, task.start, task.start_digest)
        run(watched, tmp_path, steps=steps)
        assert watched.__dict__["unaligned"] == set()
