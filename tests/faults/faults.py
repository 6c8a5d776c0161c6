"""The faults by name: the harm that each does to a job, and what an operator does before running the command again."""

import threading
import time
from collections.abc import Callable
from typing import Any

from tests.faults import services
from tests.faults.drivers import Driver
from tests.faults.faulted_jobs import FaultedJob, PrecomputeJob, TrainingJob
from tests.faults.outcomes import Outcome
from tests.faults.testbed import BUCKET, NODE_CPUS, Testbed

DISK = 48  # MiB, more than the checkpoints and the model of a training need


class NotPossible(Exception):
    """A fault that cannot be injected on this machine."""


def _worker(job: FaultedJob, *titles: str) -> Callable[[Driver], str]:
    """Return a fault that kills one of Ray's worker processes whose title begins with one of `titles`."""

    def inject(driver: Driver) -> str:
        nodes = job.testbed.nodes
        processes: list[Any] = []
        deadline = time.monotonic() + 60
        while not processes and time.monotonic() < deadline:
            processes = [process for node in nodes.workers for process in nodes.processes(node, *titles)]
        victim = job.rng.choice(sorted(processes, key=lambda process: process.pid))
        title = victim.cmdline()[0].split("(")[0].strip()
        victim.kill()
        return f"{title} killed"

    return inject


def _node(job: FaultedJob, before_replacing: Callable[[Driver], object]) -> Callable[[Driver], str]:
    """Return a fault that kills a node, waits in `before_replacing`, and adds another node."""

    def inject(driver: Driver) -> str:
        nodes = job.testbed.nodes
        busy = [node for node in nodes.workers if nodes.processes(node, "ray::RayTrainWorker", "ray::Map")]
        nodes.kill(job.rng.choice(busy or nodes.workers))
        before_replacing(driver)
        nodes.add(NODE_CPUS)
        return "node killed, replaced later"

    return inject


def _driver(driver: Driver) -> str:
    driver.kill()
    return "driver killed"


def _head(job: FaultedJob) -> Callable[[Driver], str]:
    """Return a fault that kills the head with the driver on it, as after `ray job submit`; the other nodes run on."""

    def inject(driver: Driver) -> str:
        old = job.testbed.take_cluster()
        old.kill_head()
        driver.kill()
        return "head and driver killed"

    return inject


def _storage(job: FaultedJob) -> Callable[[Driver], str]:
    """Return a fault that makes the object store answer 503 for a while."""

    def inject(driver: Driver) -> str:
        store, seconds = job.testbed.store, job.testbed.sizes.outage
        store.refused = 0
        store.failing.set()
        time.sleep(seconds)
        store.failing.clear()
        return f"503 from storage for {seconds:.0f} s ({store.refused} requests)"

    return inject


def precompute_worker(testbed: Testbed) -> Outcome:
    """The process of a tagger, captioner, decoder or writer is killed."""
    job = PrecomputeJob(testbed, "precompute_worker")
    return job.run(_worker(job, "ray::Map"))


def precompute_node(testbed: Testbed) -> Outcome:
    """A node with its actors is killed; another is added ten seconds later."""
    job = PrecomputeJob(testbed, "precompute_node")
    return job.run(_node(job, lambda driver: time.sleep(10)))


def precompute_driver(testbed: Testbed) -> Outcome:
    """The driver is killed."""
    return PrecomputeJob(testbed, "precompute_driver").run(_driver)


def precompute_head(testbed: Testbed) -> Outcome:
    """The head is killed; the job is run again on a new cluster."""
    job = PrecomputeJob(testbed, "precompute_head")
    return job.run(_head(job))


def precompute_storage(testbed: Testbed) -> Outcome:
    """The object store of pictures and results answers 503 for a while."""
    testbed.upload(testbed.world / "images", "images")
    job = PrecomputeJob(testbed, "precompute_storage", f"s3://{BUCKET}/precompute")
    job.images = f"s3://{BUCKET}/images"
    return job.run(_storage(job))


def precompute_disk(testbed: Testbed) -> Outcome:
    """The disk of the results is full until the operator makes room."""
    return _full(testbed, PrecomputeJob(testbed, "precompute_disk", str(testbed.folder / "small-disk/precompute")))


def training_worker(testbed: Testbed) -> Outcome:
    """A worker of Ray Train is killed."""
    job = TrainingJob(testbed, "training_worker")
    return job.run(_worker(job, "ray::RayTrainWorker"), earliest=6)


def training_node(testbed: Testbed) -> Outcome:
    """The node of one of two workers is killed: the other continues alone, and both continue when a node is added."""
    steps = 4 * testbed.sizes.steps
    elastic: dict[str, Any] = {"loop.steps": steps, "launch.min_workers": 1, "launch.resize_every": 5}
    job = ElasticTrainingJob(testbed, "training_node", **elastic)
    return job.run(_node(job, job.alone), earliest=6)


class ElasticTrainingJob(TrainingJob):
    """A training whose number of workers changes."""

    elastic = True

    def alone(self, driver: Driver) -> None:
        """Wait until a single worker has done some steps."""
        before = {line["pid"] for line in self.lines()}
        driver.wait_until(lambda: sum(line["pid"] not in before for line in self.lines()) >= 3)


def training_driver(testbed: Testbed) -> Outcome:
    """The driver is killed."""
    return TrainingJob(testbed, "training_driver").run(_driver, earliest=6)


def training_head(testbed: Testbed) -> Outcome:
    """The head is killed; the job is run again on a new cluster while workers of the old one may still write."""
    job = TrainingJob(testbed, "training_head")
    return job.run(_head(job), earliest=6)


def training_mlflow(testbed: Testbed) -> Outcome:
    """The MLflow server is killed and started again."""
    server = services.MlflowServer(testbed.folder / "mlflow")
    job = TrainingJob(testbed, "training_mlflow", **{"registry.tracking_uri": server.uri})
    comes_back = threading.Timer(testbed.sizes.outage, server.start)

    def inject(driver: Driver) -> str:
        server.kill()
        comes_back.start()
        return f"MLflow server killed, back after {testbed.sizes.outage:.0f} s"

    try:
        outcome = job.run(inject, comes_back.join)
        return _with_metrics(job, outcome, server.uri)
    finally:
        comes_back.cancel()
        server.kill()


def _with_metrics(job: TrainingJob, outcome: Outcome, uri: str) -> Outcome:
    """Return the outcome with the steps added that MLflow's history of the loss lacks or has twice."""
    import dataclasses

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    (experiment,) = client.search_experiments(filter_string="name = 'lion'")
    (run,) = client.search_runs([experiment.experiment_id])
    steps = [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")]
    expected = set(range(1, job.total() + 1))
    note = f"{outcome.note} MLflow has {len(set(steps) & expected)} of {len(expected)} losses".strip()
    lost, twice = outcome.lost + len(expected - set(steps)), outcome.twice + len(steps) - len(set(steps))
    return dataclasses.replace(outcome, lost=lost, twice=twice, note=note)


def training_storage(testbed: Testbed) -> Outcome:
    """The object store of the checkpoints answers 503 for a while."""
    uri = f"sqlite:///{testbed.folder}/training_storage.db"
    more = {"registry.tracking_uri": uri, "registry.artifact_location": str(testbed.folder / "artifacts")}
    job = TrainingJob(testbed, "training_storage", f"s3://{BUCKET}/training", **more)
    return job.run(_storage(job), earliest=5)


def training_disk(testbed: Testbed) -> Outcome:
    """The disk of the checkpoints is full until the operator makes room."""
    return _full(
        testbed, TrainingJob(testbed, "training_disk", str(testbed.folder / "small-disk/training")), earliest=6
    )


def _full(testbed: Testbed, job: FaultedJob, earliest: int = 1) -> Outcome:
    fillers = []

    def inject(driver: Driver) -> str:
        fillers.append(services.fill(testbed.folder / "small-disk"))
        return f"a disk of {DISK} MiB is full"

    def make_room() -> None:
        for filler in fillers:
            filler.unlink()

    try:
        with services.small_disk(testbed.folder / "small-disk", DISK):
            return job.run(inject, make_room, earliest)
    except PermissionError as error:
        raise NotPossible(str(error)) from error


FAULTS: dict[str, Callable[[Testbed], Outcome]] = {
    function.__name__: function
    for function in (
        precompute_worker, precompute_node, precompute_driver, precompute_storage, precompute_disk, training_worker,
        training_node, training_driver, training_mlflow, training_storage, training_disk, precompute_head,
        training_head,
    )
}  # fmt: skip
