"""RAM at real size (random weights) against the naive composition: CPU seconds per image and peak memory.

    python -m tests.benchmarks.ram_speed [--threads 1] [--batch 1] [--repeats 3] [--dtypes float32 bfloat16]

The naive composition is what one gets by putting the released parts together: eager attention, the label branch in
every batch, one pass over all tags, and the text towers loaded though tagging never runs them. Each contender runs in a
process of its own, in turns. Seconds are CPU time, divided by the images, so that another job on the machine slows
neither; at one thread on an idle machine they are wall time. The best of the repeats counts.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable

CONTENDERS = ("naive", "ours")
# Of ram_swin_large_14m.pth; what tagging does not need are the text towers.
RELEASED_PARAMETERS = 469_148_785


def _naive(dtype: str) -> Callable[..., object]:
    import torch

    from models.ram import RamConfig, RamForImageTagging

    model = RamForImageTagging(RamConfig.preset("swin_large")).to(getattr(torch, dtype)).eval()
    model.set_attn_implementation("eager")

    def tag(pixels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            image = model.encode_image(pixels)
            queries = torch.relu(model.wordvec_proj(model.label_embed))
            return torch.sigmoid(model.fc(model.tagging_head(queries, image)))

    tag.towers = torch.ones(RELEASED_PARAMETERS - model.num_parameters(), dtype=model.dtype)  # type: ignore[attr-defined]
    return tag


def _ours(dtype: str) -> Callable[..., object]:
    import torch

    from models.ram import RamConfig, RamForImageTagging

    return RamForImageTagging(RamConfig.preset("swin_large")).to(getattr(torch, dtype)).eval().confidences


def measure(contender: str, dtype: str, threads: int, batch: int, repeats: int) -> None:
    """Prints one JSON line: seconds per image of each repeat, and the process's peak memory in GiB."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    tag = {"naive": _naive, "ours": _ours}[contender](dtype)
    pixels = torch.randn(batch, 3, 384, 384)
    tag(pixels)
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        tag(pixels)
        seconds.append((time.process_time() - started) / batch)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds, "peak_gib": peak}))


def _in_process(contender: str, dtype: str, args: argparse.Namespace) -> dict[str, object]:
    options = {"contender": contender, "dtype": dtype, "threads": args.threads, "batch": args.batch}
    flags = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "tests.benchmarks.ram_speed", *flags, "--repeats", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": str(args.threads)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--dtype", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contender:
        measure(args.contender, args.dtype, args.threads, args.batch, args.repeats)
        return
    from pipelines.steps import git_commit

    best: dict[tuple[str, str], tuple[float, float]] = {}
    for _ in range(args.repeats):
        for dtype in args.dtypes:
            for contender in CONTENDERS:
                found = _in_process(contender, dtype, args)
                seconds, peak = min(found["seconds"]), float(found["peak_gib"])  # type: ignore[call-overload, arg-type]
                print(f"{dtype} {contender}: {seconds:.2f} s/image, peak {peak:.2f} GiB", file=sys.stderr, flush=True)
                before = best.get((dtype, contender), (float("inf"), 0.0))
                best[dtype, contender] = (min(seconds, before[0]), max(peak, before[1]))
    print(
        f"{os.cpu_count()} cores ({platform.machine()}), {args.threads} thread(s), batch {args.batch}, {git_commit()}"
    )
    print("| dtype | naive s/image | ours s/image | ratio | naive peak GiB | ours peak GiB | ratio |")
    print("|---|---|---|---|---|---|---|")
    for dtype in args.dtypes:
        (slow, large), (fast, small) = best[dtype, "naive"], best[dtype, "ours"]
        cells = (slow, fast, slow / fast, large, small, large / small)
        print(f"| {dtype} | {' | '.join(f'{cell:.2f}' for cell in cells)} |")


if __name__ == "__main__":
    main()
