"""Properties of the pinned Ray Data that the design needs: whole shards, and decoding in parallel to the model."""

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from ray.data import DataContext
from ray.data._internal.execution.operators.actor_pool_map_operator import ActorPoolMapOperator
from ray.data._internal.execution.operators.task_pool_map_operator import TaskPoolMapOperator
from ray.data._internal.logical.optimizers import get_execution_plan

from models.tags import ImageTags
from pipelines.core.errors import UserError
from pipelines.core.shards import ShardIndex, blocks, from_items
from pipelines.precompute import TaggerConfig, shards
from pipelines.precompute.pipeline import make_dataset, run_shards
from pipelines.precompute.plan import ModelPlan, ModelPool
from pipelines.precompute.taggers import Tagger
from pipelines.sources.records import ImageRecord
from tests.pipelines.precompute.worlds import folder_config, rows_of, write_pictures

SIDE = 64
SHARD_ROWS = 200  # 2.3 MiB of pixels


class Rows(Tagger):
    """Tags every image with the number of images that came with it."""

    image_size = SIDE

    def prepare(self) -> None:
        pass

    def tag(self, image_ids: Sequence[str], pixels: np.ndarray | None) -> list[ImageTags]:
        assert pixels is not None
        return [[(str(len(pixels)), 1.0)]] * len(image_ids)


class SlowRows(Rows):
    """Takes half a second per shard."""

    def tag(self, image_ids: Sequence[str], pixels: np.ndarray | None) -> list[ImageTags]:
        time.sleep(0.5)
        return super().tag(image_ids, pixels)


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("captioner", [None, ModelPool(1, 1.0, 0.0)])
def test_decoding_is_not_fused_into_an_actor(tmp_path: Path, captioner: ModelPool | None) -> None:
    config = folder_config(tmp_path)
    index = ShardIndex(10, 4, {}, ())
    plan = ModelPlan(ModelPool(1, 1.0, 0.0), captioner)
    dataset = make_dataset(range(3), "/nowhere", index, config, Rows(TaggerConfig()), plan, "fp32", {})
    operator = get_execution_plan(dataset._logical_plan)[0].dag
    kinds: list[type] = []
    while operator.input_dependencies:
        kinds.append(type(operator))
        (operator,) = operator.input_dependencies
    # Commit, tag, decode. Reading may be fused into decoding; models must not be fused with anything.
    expected = [TaskPoolMapOperator, ActorPoolMapOperator, TaskPoolMapOperator]
    assert kinds == expected + [ActorPoolMapOperator] * bool(captioner)


@pytest.mark.usefixtures("ray_cluster")
def test_blocks_above_ray_datas_limit_stay_whole_and_the_callers_context_is_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DataContext.get_current(), "target_max_block_size", 2**20)
    config = folder_config(tmp_path, shard_rows=SHARD_ROWS)
    (picture,) = write_pictures(tmp_path / "pictures", 1)
    records = (ImageRecord(str(n), str(picture), None, None, None, "test", ()) for n in range(2 * SHARD_ROWS + 1))
    index = shards.cut_source(records, str(tmp_path), SHARD_ROWS)
    plan = ModelPlan(ModelPool(1, 1.0, 0.0), None)
    proofs = run_shards([0, 2], str(tmp_path), index, config, Rows(TaggerConfig()), plan, "fp32", {})
    assert sorted((proof["shard"], proof["rows"]) for proof in proofs) == [(0, SHARD_ROWS), (2, 1)]
    assert [row["tags"][0]["tag"] for row in rows_of(str(tmp_path))] == [str(SHARD_ROWS)] * SHARD_ROWS + ["1"]
    assert DataContext.get_current().target_max_block_size == 2**20


@pytest.mark.usefixtures("ray_cluster")
def test_a_stopped_run_leaves_no_thread_that_uses_ray(tmp_path: Path) -> None:
    """A refused run shuts Ray down right after; a thread that still used Ray would then end the process."""
    config = folder_config(tmp_path, shard_rows=2)
    (picture,) = write_pictures(tmp_path / "pictures", 1)
    records = (ImageRecord(str(n), str(picture), None, None, None, "test", ()) for n in range(12))
    index = shards.cut_source(records, str(tmp_path), 2)
    plan = ModelPlan(ModelPool(1, 1.0, 0.0), None)
    before = set(threading.enumerate())
    proofs = run_shards(range(6), str(tmp_path), index, config, SlowRows(TaggerConfig()), plan, "fp32", {})
    next(proofs)
    proofs.close()
    left = {thread.name for thread in threading.enumerate() if thread not in before}
    assert not [name for name in left if name.startswith(("iter_threaded", "StreamingExecutor"))], left


def fill_a_disk(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    with open("/dev/full", "wb") as disk:
        disk.write(b"a shard")
    return batch


@pytest.mark.usefixtures("ray_cluster")
def test_a_full_disk_is_reported_with_what_to_do() -> None:
    with pytest.raises(UserError, match=r"No space left on device\); free space and run the same command again"):
        list(blocks(from_items([{"shard": 0}]).map_batches(fill_a_disk)))
