"""The testbed of fault injection: a sample world, Ray nodes, and the results of undisturbed runs."""

import contextlib
import dataclasses
import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from tests.faults.drivers import ROOT, Driver
from tests.faults.nodes import Nodes, environment
from tests.faults.services import ObjectStore

BUCKET = "faults"
NODE_CPUS = 3
WEIGHTS = ROOT / "pipelines/sample_world/backbones/weights"
MODEL = "lion-tag-encoder"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The amount of work.

    Attributes:
        images: drawn images, of which 80 % are precomputed.
        shard_rows: images per shard.
        steps: steps of a training.
        outage: seconds for which MLflow or storage is down.
    """

    images: int = 60
    shard_rows: int = 1
    steps: int = 40
    outage: float = 60.0


class Testbed:
    """A sample world, a cluster of three nodes, and the undisturbed results; each is made when it is first used.

    Args:
        folder: the folder of all files.
        seed: the seed of all random choices.
        sizes: the amount of work.
        store: the object store. Workers find it by the variables that the nodes are started with.
    """

    def __init__(self, folder: Path, seed: int, sizes: Sizes, store: ObjectStore) -> None:
        self.environment = environment(ROOT, **store.environment)
        self.folder, self.seed, self.sizes, self.store = folder, seed, sizes, store
        self._nodes: Nodes | None = None
        self._old: list[Nodes] = []
        self._results: dict[str, Path] = {}

    def rng(self, name: str) -> random.Random:
        """Return the random numbers of one fault, which do not depend on the other faults of a run."""
        return random.Random(f"{self.seed}-{name}")

    @property
    def nodes(self) -> Nodes:
        """The complete cluster: a head and two worker nodes."""
        if self._nodes is None:
            self._nodes = Nodes(self.environment, NODE_CPUS, NODE_CPUS)
        while len(self._nodes.workers) < 2:
            self._nodes.add(NODE_CPUS)
        return self._nodes

    def take_cluster(self) -> Nodes:
        """Return the cluster and forget it: `nodes` then starts another one, while the old one may still run."""
        taken, self._nodes = self.nodes, None
        self._old.append(taken)
        return taken

    def close(self) -> None:
        """Kill all clusters."""
        for nodes in [*self._old, *filter(None, [self._nodes])]:
            nodes.close()

    @property
    def world(self) -> Path:
        """The folder of drawn scenes with captions; one picture is truncated."""
        if "world" not in self._results:
            options = {"images": self.sizes.images, "seed": self.seed, "preset": "tiny", "out": self.folder / "world"}
            code, result = self.drive("sample_world", options, self.folder / "world", "world").finish()
            assert code == 0
            self._results["world"] = Path(result["path"])
            torn = json.loads((self._results["world"] / "captions_train.json").read_text())["images"][3]["file_name"]
            (self._results["world"] / "images" / torn).write_bytes(b"\xff\xd8torn")
        return self._results["world"]

    @property
    def tagged(self) -> Path:
        """The undisturbed result of precompute."""
        if "tagged" not in self._results:
            self._results["tagged"] = self._undisturbed("precompute", self.precompute_options("tagged"))
        return self._results["tagged"]

    def trained_for(self, steps: int) -> Path:
        """Return the result of an undisturbed training with two workers."""
        name = f"trained-{steps}"
        if name not in self._results:
            options = {**self.training_options(name), "loop.steps": steps}
            self._results[name] = self._undisturbed("train_tag_encoder", options)
        return self._results[name]

    def drive(
        self, verb: str, options: Mapping[str, Any], logs: Path, name: str, progress: Callable[[], int] = lambda: 0
    ) -> Driver:
        """Start a verb; see `Driver`."""
        return Driver(verb, options, logs, name, progress, self.environment)

    def _undisturbed(self, verb: str, options: dict[str, Any]) -> Path:
        driver = self.drive(verb, {**options, "ray.address": self.nodes.address}, self.folder / "logs", f"whole-{verb}")
        code, result = driver.finish()
        if code:
            raise RuntimeError(driver.tail())
        return Path(result["path"])

    def precompute_options(self, name: str, out: str | None = None, images: str | None = None) -> dict[str, Any]:
        """Return the options of precompute on the world: RAM, a sentence encoder, and many small shards."""
        return {
            "source.kind": "coco_captions", "source.annotations": self.world / "captions_train.json",
            "source.images": images or self.world / "images", "tagger.path": WEIGHTS / "tagger",
            "shard_rows": self.sizes.shard_rows, "max_bad_fraction": 0.1, "out": out or self.folder / name,
        }  # fmt: skip

    def training_options(self, name: str, out: str | None = None, **more: Any) -> dict[str, Any]:
        """Return the options of a training of the tag encoder with two workers, one per node."""
        return {
            "data": self.tagged, "base": WEIGHTS / "tag_encoder", "normalize": True, "pooling": "mean", "dropout": 0.0,
            "loop.steps": self.sizes.steps, "loop.batch_size": 64, "loop.zero_stage": 1,
            "loop.validate_every": 10_000, "loop.checkpoint_every": 5, "loop.log_every": 1,
            "loop.trace": out is None, "launch.workers": 2, "launch.cpus_per_worker": 2,
            "out": out or self.folder / name, **more,
        }  # fmt: skip

    def upload(self, folder: Path, key: str) -> None:
        """Copy a folder into the bucket, bypassing the proxy."""
        pafs.copy_files(str(folder), f"{BUCKET}/{key}", pafs.LocalFileSystem(), self.store.filesystem)

    def download(self, uri: str, folder: Path) -> Path:
        """Copy a result out of the bucket, bypassing the proxy."""
        folder.mkdir(parents=True, exist_ok=True)
        pafs.copy_files(uri.removeprefix("s3://"), str(folder), self.store.filesystem, pafs.LocalFileSystem())
        return folder

    def listed(self, out: str, pattern: str) -> dict[str, int]:
        """Return the files below `out` that match a pattern, with their modification times in nanoseconds."""
        if not out.startswith("s3://"):
            times = {}
            for path in Path(out).glob(pattern):
                with contextlib.suppress(FileNotFoundError):  # a checkpoint may be deleted between the two calls
                    times[str(path.relative_to(out))] = path.stat().st_mtime_ns
            return times
        root = out.removeprefix("s3://")
        infos = self.store.filesystem.get_file_info(pafs.FileSelector(root, recursive=True, allow_not_found=True))
        return {
            info.path.removeprefix(f"{root}/"): info.mtime_ns
            for info in infos
            if info.type == pafs.FileType.File and Path(info.path).match(pattern)
        }
