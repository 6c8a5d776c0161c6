"""RAM at real size (random weights) against the straightforward composition: time an image and peak memory.

The straightforward composition is what one gets by putting the released parts together: eager attention, the label
branch in every batch, one pass over all tags, and the text towers loaded though tagging never runs them. Each
contender runs in a process of its own, in turns.
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
# Of ram_swin_large_14m.pth; what tagging does not need are the text towers.
RELEASED_PARAMETERS = 469_148_785


def straightforward(dtype: str, device: str) -> Callable[..., object]:
    """The released parts put together."""
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
    """`models.ram`."""
    import torch

    from models.ram import RamConfig, RamForImageTagging

    model: Any = RamForImageTagging(RamConfig.preset("swin_large"))
    confidences: Callable[..., object] = model.to(device, getattr(torch, dtype)).eval().confidences
    return confidences


def one(contender: str, dtype: str, batch: int) -> None:
    """Prints one JSON line: seconds an image, and the peak memory in GiB (of the card, where there is one)."""
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
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def computes_bf16() -> bool:
    """Whether this machine has arithmetic for bf16: a GPU, or a CPU with AMX or AVX-512 BF16."""
    import torch

    return torch.cuda.is_available() or torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def tags(rounds: int) -> Figure:
    """Confidences of 4585 tags, of which some 300 an image are above the floor, into named tags."""
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
                  note="in the thread that feeds the model: at 1.8 ms no card could tag 560 images/s")  # fmt: skip


def pixels(rounds: int, folder: Path) -> Figure:
    """Bytes of 384 x 384 pixels into what RAM sees."""
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
    """fp32, and bf16 where the processor computes in it."""
    import torch

    yield tags(settings.choose(7, 4))
    yield pixels(settings.choose(7, 4), settings.work / "tiny-ram")
    batch = 16 if torch.cuda.is_available() else 1
    for dtype, goal in (("float32", 1.3), ("bfloat16", 3.0)):
        if dtype == "bfloat16" and not computes_bf16():
            yield NotMeasured("bfloat16", "this processor has no arithmetic for bf16 (36 s an image in emulation)")
            continue
        found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
        for number in range(settings.choose(3, 1)):
            for name in CONTENDERS if number % 2 else CONTENDERS[::-1]:
                found[name].append(_in_process(name, dtype, batch))
        mine, others = ([row["seconds"] for row in found[name]] for name in CONTENDERS)
        yield Figure(dtype, f"RAM (Swin-L, 4585 tags), {dtype}", "straightforward composition", mine, others, "s/image",
                     clock(), goal=goal, note="both run the same linear layers, about 85 % of the time")  # fmt: skip
        mine, others = ([row["peak"] for row in found[name]] for name in CONTENDERS)
        yield Figure(f"{dtype}_memory", f"RAM, {dtype}, peak memory", "straightforward composition", mine, others,
                     "GiB", "memory", goal=1 / 0.75)  # fmt: skip


if __name__ == "__main__":
    one(sys.argv[1], sys.argv[2], int(sys.argv[3]))
