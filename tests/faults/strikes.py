"""The faults, by name: what each does to a job, and what an operator does before giving the command again."""

import threading
import time
from collections.abc import Callable
from typing import Any

from tests.faults import services
from tests.faults.drivers import Driver
from tests.faults.outcomes import Outcome
from tests.faults.place import BUCKET, NODE_CPUS, Place
from tests.faults.under_fire import Precompute, Training, UnderFire

DISK = 48  # MiB; a training's checkpoints and model take a part of it


class NotHere(Exception):
    """A fault that cannot be made on this machine."""


def _worker(job: UnderFire, *titles: str) -> Callable[[Driver], str]:
    """One of Ray's processes that do the job's work ends at once."""

    def strike(driver: Driver) -> str:
        nodes = job.place.nodes
        found: list[Any] = []
        deadline = time.monotonic() + 60
        while not found and time.monotonic() < deadline:
            found = [process for node in nodes.workers for process in nodes.processes(node, *titles)]
        victim = job.chance.choice(sorted(found, key=lambda process: process.pid))
        title = victim.cmdline()[0].split("(")[0].strip()
        victim.kill()
        return f"{title} killed"

    return strike


def _node(job: UnderFire, again_after: Callable[[Driver], object]) -> Callable[[Driver], str]:
    """A node ends at once; another takes its place after something holds."""

    def strike(driver: Driver) -> str:
        nodes = job.place.nodes
        busy = [node for node in nodes.workers if nodes.processes(node, "ray::RayTrainWorker", "ray::Map")]
        nodes.kill(job.chance.choice(busy or nodes.workers))
        again_after(driver)
        nodes.add(NODE_CPUS)
        return "node killed, replaced later"

    return strike


def _driver(driver: Driver) -> str:
    driver.kill()
    return "driver killed"


def _head(job: UnderFire) -> Callable[[Driver], str]:
    """The head's machine with the driver on it, as `ray job submit` has it; the other nodes live on for a while."""

    def strike(driver: Driver) -> str:
        old = job.place.take_cluster()
        old.kill_head()
        driver.kill()
        return "head and driver killed"

    return strike


def _storage(job: UnderFire) -> Callable[[Driver], str]:
    """Every request to the object store is answered by 503 for a while."""

    def strike(driver: Driver) -> str:
        store, seconds = job.place.store, job.place.sizes.outage
        store.refused = 0
        store.failing.set()
        time.sleep(seconds)
        store.failing.clear()
        return f"503 from storage for {seconds:.0f} s ({store.refused} requests)"

    return strike


def precompute_worker(place: Place) -> Outcome:
    """A tagger's, captioner's, decoder's or writer's process is killed."""
    job = Precompute(place, "precompute_worker")
    return job.run(_worker(job, "ray::Map"))


def precompute_node(place: Place) -> Outcome:
    """A node with its actors is killed; ten seconds later there is another."""
    job = Precompute(place, "precompute_node")
    return job.run(_node(job, lambda driver: time.sleep(10)))


def precompute_driver(place: Place) -> Outcome:
    """The driver is killed."""
    return Precompute(place, "precompute_driver").run(_driver)


def precompute_head(place: Place) -> Outcome:
    """The head is killed; the job is given to a new cluster."""
    job = Precompute(place, "precompute_head")
    return job.run(_head(job))


def precompute_storage(place: Place) -> Outcome:
    """Pictures come from an object store and results go to it, and it answers 503 for a while."""
    place.upload(place.world / "images", "images")
    job = Precompute(place, "precompute_storage", f"s3://{BUCKET}/precompute")
    job.images = f"s3://{BUCKET}/images"
    return job.run(_storage(job))


def precompute_disk(place: Place) -> Outcome:
    """The disk of the results is full until somebody makes room."""
    return _full(place, Precompute(place, "precompute_disk", str(place.folder / "small-disk/precompute")))


def training_worker(place: Place) -> Outcome:
    """A worker of Ray Train is killed."""
    job = Training(place, "training_worker")
    return job.run(_worker(job, "ray::RayTrainWorker"), earliest=6)


def training_node(place: Place) -> Outcome:
    """The node of one of two workers is killed: the other goes on alone, and both go on when there is a node again."""
    steps = 4 * place.sizes.steps
    elastic: dict[str, Any] = {"loop.steps": steps, "launch.min_workers": 1, "launch.resize_every": 5}
    job = Elastic(place, "training_node", **elastic)
    return job.run(_node(job, job.alone), earliest=6)


class Elastic(Training):
    """A training whose workers become fewer and more."""

    elastic = True

    def alone(self, driver: Driver) -> None:
        """Waits until one worker has done some steps."""
        before = {line["pid"] for line in self.lines()}
        driver.wait_until(lambda: sum(line["pid"] not in before for line in self.lines()) >= 3)


def training_driver(place: Place) -> Outcome:
    """The driver is killed."""
    return Training(place, "training_driver").run(_driver, earliest=6)


def training_head(place: Place) -> Outcome:
    """The head is killed; the job is given to a new cluster while the old one's workers may still write."""
    job = Training(place, "training_head")
    return job.run(_head(job), earliest=6)


def training_mlflow(place: Place) -> Outcome:
    """The MLflow server is killed and comes back."""
    server = services.MlflowServer(place.folder / "mlflow")
    job = Training(place, "training_mlflow", **{"registry.tracking_uri": server.uri})
    comes_back = threading.Timer(place.sizes.outage, server.start)

    def strike(driver: Driver) -> str:
        server.kill()
        comes_back.start()
        return f"MLflow server killed, back after {place.sizes.outage:.0f} s"

    try:
        found = job.run(strike, comes_back.join)
        return _with_metrics(job, found, server.uri)
    finally:
        comes_back.cancel()
        server.kill()


def _with_metrics(job: Training, found: Outcome, uri: str) -> Outcome:
    """The outcome, with what MLflow's own history of the loss lacks or has twice."""
    import dataclasses

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    (experiment,) = client.search_experiments(filter_string="name = 'lion'")
    (run,) = client.search_runs([experiment.experiment_id])
    steps = [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")]
    wanted = set(range(1, job.total() + 1))
    note = f"{found.note} MLflow has {len(set(steps) & wanted)} of {len(wanted)} losses".strip()
    lost, twice = found.lost + len(wanted - set(steps)), found.twice + len(steps) - len(set(steps))
    return dataclasses.replace(found, lost=lost, twice=twice, note=note)


def training_storage(place: Place) -> Outcome:
    """Checkpoints go to an object store that answers 503 for a while."""
    uri = f"sqlite:///{place.folder}/training_storage.db"
    more = {"registry.tracking_uri": uri, "registry.artifact_location": str(place.folder / "artifacts")}
    job = Training(place, "training_storage", f"s3://{BUCKET}/training", **more)
    return job.run(_storage(job), earliest=5)


def training_disk(place: Place) -> Outcome:
    """The disk of the checkpoints is full until somebody makes room."""
    return _full(place, Training(place, "training_disk", str(place.folder / "small-disk/training")), earliest=6)


def _full(place: Place, job: UnderFire, earliest: int = 1) -> Outcome:
    fillers = []

    def strike(driver: Driver) -> str:
        fillers.append(services.fill(place.folder / "small-disk"))
        return f"a disk of {DISK} MiB is full"

    def make_room() -> None:
        for filler in fillers:
            filler.unlink()

    try:
        with services.small_disk(place.folder / "small-disk", DISK):
            return job.run(strike, make_room, earliest)
    except PermissionError as error:
        raise NotHere(str(error)) from error


FAULTS: dict[str, Callable[[Place], Outcome]] = {
    function.__name__: function
    for function in (
        precompute_worker, precompute_node, precompute_driver, precompute_storage, precompute_disk, training_worker,
        training_node, training_driver, training_mlflow, training_storage, training_disk, precompute_head,
        training_head,
    )
}  # fmt: skip
