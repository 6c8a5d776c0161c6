"""RAM at full size (random weights), compared with a straightforward composition: time per image and peak memory.

The straightforward composition puts the released parts together: eager attention, the label branch in every batch, one
pass over all tags, and the text towers, which tagging never runs, in memory. Each contender runs in a separate process,
alternately.
"""

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.figures import Figure, NotMeasured, Settings, clock, cpu_seconds, in_turns, seconds
from tests.benchmarks.material import save_ram
from tests.benchmarks.runner import ROOT, environment

CONTENDERS = ("ours", "straightforward")
# Sizes of ram_swin_large_14m.pth; tagging does not need the text towers.
RELEASED_PARAMETERS = 469_148_785


def straightforward(dtype: str, device: str) -> Callable[..., object]:
    """Build the straightforward composition of the released parts."""
    import torch

    from models.ram import RamConfig, RamForImageTagging

    model: Any = RamForImageTagging(RamConfig.preset("swin_large"))
    model.to(device, getattr(torch, dtype)).eval()
    model.set_attn_implementation("eager")

    def tag(pixels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            image = model.encode_image(pixels)
            queries = torch.relu(model.wordvec_proj(model.label_embed))
            return torch.sigmoid(model.fc(model.tagging_head(queries, image)))

    towers = torch.ones(RELEASED_PARAMETERS - model.num_parameters(), dtype=model.dtype, device=device)
    tag.towers = towers  # type: ignore[attr-defined]
    return tag


def ours(dtype: str, device: str) -> Callable[..., object]:
    """Build this project's RAM."""
    import torch

    from models.ram import RamConfig, RamForImageTagging

    model: Any = RamForImageTagging(RamConfig.preset("swin_large"))
    confidences: Callable[..., object] = model.to(device, getattr(torch, dtype)).eval().confidences
    return confidences


def one(contender: str, dtype: str, batch: int) -> None:
    """Print one JSON line: seconds per image, and peak memory in GiB (of the GPU, if there is one)."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tag = {"ours": ours, "straightforward": straightforward}[contender](dtype, device)
    pixels = torch.randn(batch, 3, 384, 384, device=device)
    tag(pixels)
    taken = seconds(lambda: tag(pixels)) / batch
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else _resident() * 2**10
    print(json.dumps({"seconds": taken, "peak": peak / 2**30}))


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _in_process(contender: str, dtype: str, batch: int) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.ram_speed", contender, dtype, str(batch)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment())
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def computes_bf16() -> bool:
    """Return whether this machine has bf16 arithmetic: a GPU, or a CPU with AMX or AVX-512 BF16."""
    import torch

    return torch.cuda.is_available() or torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def tags(rounds: int) -> Figure:
    """Measure naming the tags from 4585 confidences, of which about 300 per image are above the floor."""
    import torch

    from models.ram import RamProcessor

    torch.set_num_threads(1)
    torch.manual_seed(0)
    processor = RamProcessor([f"tag {number}" for number in range(4585)])
    confidences = torch.sigmoid(1.5 * torch.randn(32, 4585) - 5.2)

    def one_by_one() -> list[list[tuple[str, float]]]:
        ranked = torch.sort(confidences, dim=1, descending=True, stable=True).indices
        return [
            [(processor.tag_list[i], row[i].item()) for i in order[row[order] > 0.05].tolist()]
            for row, order in zip(confidences, ranked, strict=True)
        ]

    assert processor.tags(confidences) == one_by_one()
    turns = in_turns(rounds, {
        "ours": lambda: 1000 * cpu_seconds(lambda: processor.tags(confidences)) / 32,
        "plain": lambda: 1000 * cpu_seconds(one_by_one) / 32,
    })  # fmt: skip
    return Figure("tags", "RAM's confidences into tags, a batch at a time", "image by image, tag by tag",
                  turns["ours"], turns["plain"], "ms/image", "CPU time", goal=2.0,
                  note="in the thread that feeds the model; 1.8 ms would limit any GPU to 560 images/s")  # fmt: skip


def pixels(rounds: int, folder: Path) -> Figure:
    """Measure making RAM's input from the bytes of 384 x 384 pixels."""
    import torch

    from pipelines.precompute import TaggerConfig
    from pipelines.precompute.ram import RamTagger

    tagger = RamTagger(TaggerConfig(path=str(save_ram(folder, 384, 8, (1,), 4))))
    tagger.setup("cpu", 1, "fp32")
    raw = np.random.default_rng(0).integers(0, 255, (4, 384, 384, 3), dtype=np.uint8)
    mean, std = (
        torch.tensor(values).view(1, 3, 1, 1) for values in (tagger.processor.image_mean, tagger.processor.image_std)
    )

    def plain() -> torch.Tensor:
        return torch.from_numpy(raw).permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std)

    torch.testing.assert_close(tagger.normalized(raw), plain())
    turns = in_turns(rounds, {
        "ours": lambda: 1000 * cpu_seconds(lambda: [tagger.normalized(raw) for _ in range(16)]) / 64,
        "plain": lambda: 1000 * cpu_seconds(lambda: [plain() for _ in range(16)]) / 64,
    })  # fmt: skip
    return Figure("pixels", "bytes to RAM's pixels, by rows", "broadcast over three channels",
                  turns["ours"], turns["plain"], "ms/image", "CPU time", goal=3.0)  # fmt: skip


def measure(settings: Settings) -> Iterator[Figure | NotMeasured]:
    """Measure fp32 and, if the processor has bf16 arithmetic, bf16."""
    import torch

    yield tags(settings.choose(7, 4))
    yield pixels(settings.choose(7, 4), settings.work / "tiny-ram")
    batch = 16 if torch.cuda.is_available() else 1
    for dtype, goal in (("float32", 1.3), ("bfloat16", 3.0)):
        if dtype == "bfloat16" and not computes_bf16():
            yield NotMeasured("bfloat16", "this processor has no bf16 arithmetic (36 s per image with emulation)")
            continue
        results: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
        for number in range(settings.choose(3, 1)):
            for name in CONTENDERS if number % 2 else CONTENDERS[::-1]:
                results[name].append(_in_process(name, dtype, batch))
        mine, others = ([row["seconds"] for row in results[name]] for name in CONTENDERS)
        yield Figure(dtype, f"RAM (Swin-L, 4585 tags), {dtype}", "straightforward composition", mine, others, "s/image",
                     clock(), goal=goal, note="both run the same linear layers, about 85 % of the time")  # fmt: skip
        mine, others = ([row["peak"] for row in results[name]] for name in CONTENDERS)
        yield Figure(f"{dtype}_memory", f"RAM, {dtype}, peak memory", "straightforward composition", mine, others,
                     "GiB", "memory", goal=1 / 0.75)  # fmt: skip


if __name__ == "__main__":
    one(sys.argv[1], sys.argv[2], int(sys.argv[3]))
