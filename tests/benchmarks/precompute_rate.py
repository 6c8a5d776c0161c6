"""Images/s of the precompute pipeline on real images, against a bare loop of the same work in one process.

    python -m tests.benchmarks.precompute_rate [--images DIR] [--copies 12] [--repeats 3] [--captions]

Both do the whole of it: read the shard, pick captions (with `--captions`), decode, tag, write Parquet. They are
measured in turn; the start-up is named and is no part of the rate. Read the load average beside the figures:
other work on the machine slows both, though not alike, and on a busy one they mean nothing.
"""

import argparse
import contextlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from pipelines import steps
from pipelines.precompute import CaptionerConfig, PrecomputeConfig, SourceConfig, TaggerConfig, shards
from pipelines.precompute.pipeline import run_shards
from pipelines.precompute.plan import Plan, make_plan
from pipelines.precompute.stages import Caption, Commit, Decode, ReadShard, Tag
from pipelines.precompute.taggers import Tagger, make_tagger
from pipelines.runtime import RayConfig, ray_session
from pipelines.shards import ShardIndex
from pipelines.sources.records import ImageRecord
from tests.pipelines.precompute.worlds import save_tiny_ram, write_tags

CAPTIONS = ("a dog on a sofa", "a brown dog lies there", "the dog sleeps", "one dog and a cushion", "a sofa with a dog")
SHARD_ROWS = 64


def records(images: Path, copies: int, captions: bool) -> Iterator[ImageRecord]:
    """Every image of the folder, several times under ids of its own."""
    for copy in range(copies):
        for path in sorted(images.glob("*.jpg")):
            texts = CAPTIONS if captions else ()
            yield ImageRecord(f"{copy}-{path.name}", str(path), None, None, None, "benchmark", texts)


def bare_loop(folder: str, index: ShardIndex, config: PrecomputeConfig, tagger: Tagger) -> float:
    """Images/s of one process that does one thing after the other, its models on all cores."""
    threads = os.cpu_count() or 1
    read = Caption(folder, config.captioner, 0.0, threads) if index.counts["captions"] else ReadShard(folder)
    decode = Decode(tagger.image_size, config.max_pixels, config.jpeg_draft, config.embed_bytes)
    tag, commit = Tag(tagger, 0.0, threads, "fp32"), Commit(folder, index, {})
    started = time.perf_counter()
    for shard in range(index.shards):
        commit(tag(decode(read(pa.table({"shard": [shard]})))))
    return index.rows / (time.perf_counter() - started)


def pipeline(
    folder: str, index: ShardIndex, config: PrecomputeConfig, tagger: Tagger, plan: Plan
) -> tuple[float, float]:
    """Images/s, and the seconds that a run takes beside that.

    Two runs, over a quarter of the shards and over all: the rate is what the further shards took, in which starting
    actors and the shards that were in flight before the first one ended have no part.
    """
    few = max(1, index.shards // 4)
    seconds = []
    for count in (few, index.shards):
        started = time.perf_counter()
        proofs = list(run_shards(range(count), folder, index, config, tagger, plan, "fp32", {}))
        seconds.append(time.perf_counter() - started)
        assert len(proofs) == count
    if seconds[1] <= seconds[0]:
        raise SystemExit("More the work took less time: the machine is too busy to measure; try again when it is idle.")
    further = index.rows - few * index.shard_rows
    rate = further / (seconds[1] - seconds[0])
    return rate, seconds[1] - index.rows / rate


def measure(name: str, config: PrecomputeConfig, arguments: argparse.Namespace, work: Path) -> str:
    """One line of the table: medians over the repeats, and the ratio."""
    import ray

    tagger = make_tagger(config.tagger)
    tagger.prepare()
    index = shards.cut_source(records(arguments.images, arguments.copies, arguments.captions), str(work), SHARD_ROWS)
    captioner = CaptionerConfig() if index.counts["captions"] else None
    plan = make_plan(config.tagger, captioner, [node["Resources"] for node in ray.nodes()], tagger.needs_model)
    loops, pipelines, starts = [], [], []
    for _ in range(arguments.repeats):
        loops.append(bare_loop(str(work), index, config, tagger))
        rate, start = pipeline(str(work), index, config, tagger, plan)
        pipelines.append(rate)
        starts.append(start)
    ratio = statistics.median(rate / loop for rate, loop in zip(pipelines, loops, strict=True))
    spread = f"{min(pipelines):.1f}-{max(pipelines):.1f}"
    return (
        f"| {name} | {index.rows} | {statistics.median(loops):.1f} | {statistics.median(pipelines):.1f} ({spread}) "
        f"| {ratio:.2f} | {statistics.median(starts):.1f} |"
    )


def main() -> None:
    """Measures both taggers and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = Path(__file__).resolve().parents[2]
    parser.add_argument("--images", type=Path, default=root.parent / "shared/data/coco/images")
    parser.add_argument("--copies", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--captions", action="store_true", help="also pick captions (five an image)")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        names = [path.name for path in arguments.images.glob("*.jpg")]
        table = write_tags(work / "tags.parquet", {name: [("dog", 0.9)] for name in names})
        taggers = {
            "table": TaggerConfig(kind="table", path=str(table)),
            "ram (tiny)": TaggerConfig(path=str(save_tiny_ram(work / "ram"))),
        }
        stack.enter_context(ray_session(RayConfig(address="local")))
        lines = [
            measure(name, PrecomputeConfig(source=SourceConfig(images="-"), tagger=tagger), arguments, work / name)
            for name, tagger in taggers.items()
        ]
    facts = {"cores": os.cpu_count(), "load": os.getloadavg(), "commit": steps.git_commit(), **steps.versions()}
    print(json.dumps(facts))
    print("| tagger | images | bare loop images/s | pipeline images/s (min-max) | ratio | start-up s |")
    print("|---|---|---|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
