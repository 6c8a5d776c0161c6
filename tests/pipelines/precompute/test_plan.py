"""The pools that a plan fills in, and plans that are refused before anything starts (P11)."""

import pytest

from pipelines.core.errors import UserError
from pipelines.precompute import CaptionerConfig, TaggerConfig
from pipelines.precompute.plan import ModelPlan, ModelPool, check_fit, make_plan

LAPTOP = [{"CPU": 8.0}]
GPU_NODE = {"CPU": 16.0, "GPU": 4.0}


@pytest.mark.parametrize("cpus, taggers", [(3, 1), (4, 2), (8, 6), (64, 48)])
def test_without_gpus_there_is_a_tagger_per_core_on_three_quarters_of_the_cpus(cpus: int, taggers: int) -> None:
    plan = make_plan(TaggerConfig(), CaptionerConfig(), [{"CPU": float(cpus)}])
    assert plan == ModelPlan(ModelPool(taggers, 1.0, 0.0), ModelPool(1, 1.0, 0.0))
    assert plan.total()["CPU"] <= cpus
    check_fit(plan, [{"CPU": float(cpus)}])


def test_cores_and_memory_of_a_node_limit_its_taggers() -> None:
    assert make_plan(TaggerConfig(), None, [{"CPU": 8.0, "cores": 2.0}]).tagger == ModelPool(2, 1.0, 0.0)
    crowded = {"CPU": 16.0, "memory": 13 * 2.0**30}
    assert make_plan(TaggerConfig(), None, [crowded]).tagger == ModelPool(3, 4.0, 0.0)
    assert make_plan(TaggerConfig(), None, [{"CPU": 8.0, "memory": 2.0**30}]).tagger == ModelPool(1, 6.0, 0.0)


def test_either_taggers_or_their_threads_may_be_set() -> None:
    assert make_plan(TaggerConfig(actors=2), None, LAPTOP).tagger == ModelPool(2, 3.0, 0.0)
    assert make_plan(TaggerConfig(cpus=3), None, LAPTOP).tagger == ModelPool(2, 3.0, 0.0)


def test_each_gpu_gets_a_tagger_and_shares_with_the_encoders() -> None:
    nodes = [GPU_NODE, GPU_NODE, {"CPU": 4.0}]
    plan = make_plan(TaggerConfig(), CaptionerConfig(), nodes)
    assert plan == ModelPlan(ModelPool(8, 1.0, 0.9), ModelPool(2, 1.0, 0.1))
    check_fit(plan, nodes)


def test_each_node_gets_taggers_where_there_are_no_gpus() -> None:
    nodes = [{"CPU": 8.0}, {"CPU": 16.0}, {"CPU": 0.0}]
    plan = make_plan(TaggerConfig(), None, nodes)
    assert plan.tagger == ModelPool(6 + 12, 1.0, 0.0)
    check_fit(plan, nodes)


def test_a_gpu_is_whole_without_captions_and_idle_without_a_model() -> None:
    assert make_plan(TaggerConfig(), None, [GPU_NODE]) == ModelPlan(ModelPool(4, 1.0, 1.0), None)
    assert make_plan(TaggerConfig(), CaptionerConfig(), [GPU_NODE], needs_model=False).total() == {"CPU": 3.0}


def test_the_users_values_are_kept() -> None:
    tagger = TaggerConfig(actors=2, cpus=1.5, gpus=0.0)
    plan = make_plan(tagger, CaptionerConfig(actors=3, cpus=0.5, gpus=0.25), [GPU_NODE])
    assert plan == ModelPlan(ModelPool(2, 1.5, 0.0), ModelPool(3, 0.5, 0.25))
    assert plan.total() == {"CPU": 5.5, "GPU": 0.75}


@pytest.mark.parametrize(
    "tagger, nodes",
    [
        (TaggerConfig(cpus=8), LAPTOP),  # no CPU is left for decoding
        (TaggerConfig(cpus=6), [{"CPU": 4.0}, {"CPU": 4.0}]),  # enough in total, too little on each node
        (TaggerConfig(actors=1, gpus=2), [{"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 1.0}]),
        (TaggerConfig(gpus=1, actors=1), LAPTOP),
    ],
)
def test_a_plan_that_fits_nowhere_is_refused(tagger: TaggerConfig, nodes: list[dict[str, float]]) -> None:
    with pytest.raises(UserError, match="fits on no node"):
        check_fit(make_plan(tagger, None, nodes), nodes)


def test_a_plan_in_words() -> None:
    plan = ModelPlan(ModelPool(4, 1.0, 1.0), ModelPool(1, 0.5, 0.0))
    assert str(plan) == "taggers: 4 of 1 CPU and 1 GPU; captioners: 1 of 0.5 CPU"
