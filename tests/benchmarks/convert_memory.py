"""Memory of jobs.convert with files of the released shapes, filled with zeros.

`python -m tests.benchmarks.convert_memory DIR xl` uses the released sizes; DIR must be new and needs 30 GB.
"""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from tests.benchmarks.figures import Figure, NotMeasured, Settings

SHARD_BYTES = 5 * 10**9
_ROOM = 20 * 2**30


def released_shapes(size: str) -> dict[str, tuple[int, ...]]:
    """Return the shape of each released tensor of a LION of this size, by name."""
    from models.lion import LionConfig
    from models.lion.conversion import expected_shapes
    from models.lion.naming import to_released

    config = LionConfig.preset(size)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in expected_shapes(config).items():
        if name.endswith("qkv.bias"):
            stem = to_released(name.replace("qkv.bias", "qkv.weight"), config.adapters).removesuffix("qkv.weight")
            shapes |= {f"{stem}{half}_bias": (shape[0] // 3,) for half in "qv"}
        else:
            shapes[to_released(name, config.adapters)] = shape
    return shapes


def _zeros(shapes: dict[str, tuple[int, ...]], dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    return ((name, torch.zeros(shape, dtype=dtype)) for name, shape in shapes.items())


def write_released(folder: Path, size: str) -> list[str]:
    """Write LION (fp32) and EVA-ViT-g with its 40th block (fp16) as .pth, Flan-T5 as fp32 shards, small tokenizers.

    Returns:
        The options of jobs.convert with these files.
    """
    from safetensors.torch import save_file

    from models.lion import LionConfig
    from models.lion.vocabulary import bert_vocabulary, t5_vocabulary

    shapes = released_shapes(size)
    vit = {n.removeprefix("visual_encoder."): s for n, s in shapes.items() if n.startswith("visual_encoder.")}
    blocks = LionConfig.preset(size).vision_config.num_hidden_layers
    vit |= {n.replace("blocks.0.", f"blocks.{blocks}."): s for n, s in vit.items() if n.startswith("blocks.0.")}
    t5 = {
        n.removeprefix("t5_model."): s for n, s in shapes.items() if n.startswith("t5_model.") and ".adapter." not in n
    }
    rest = {n: s for n, s in shapes.items() if not n.startswith(("visual_encoder.", "t5_model.")) or ".adapter." in n}
    torch.save({"model": dict(_zeros(rest, torch.float32))}, folder / "lion.pth")
    torch.save(dict(_zeros(vit, torch.float16)), folder / "vit.pth")
    (folder / "t5").mkdir()
    weight_map: dict[str, str] = {}
    shard: dict[str, Tensor] = {}
    number = 0
    for name, tensor in (*_zeros(t5, torch.float32), ("", torch.zeros(0))):
        if not name or sum(t.nbytes for t in shard.values()) + tensor.nbytes > SHARD_BYTES:
            save_file(shard, folder / "t5" / f"shard{number}.safetensors", metadata={"format": "pt"})
            weight_map |= dict.fromkeys(shard, f"shard{number}.safetensors")
            number, shard = number + 1, {}
        shard[name] = tensor
    (folder / "t5/model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    LionConfig.preset(size).text_config.save_pretrained(folder / "t5")
    t5_vocabulary(["a few words"]).save_pretrained(folder / "words")
    bert_vocabulary(["a few words"]).save_pretrained(folder / "questions")
    return ["--checkpoint", f"{folder}/lion.pth", "--vit", f"{folder}/vit.pth", "--llm", f"{folder}/t5",
            "--tokenizer", f"{folder}/words", "--qformer_tokenizer", f"{folder}/questions"]  # fmt: skip


def convert(folder: Path, size: str, dtype: str) -> tuple[float, int, int]:
    """Write the files, convert them, and remove them.

    Returns:
        Peak memory in bytes (counted by the kernel, including pages of memory-mapped input files), bytes of the written
        model, and bytes of the released files.
    """
    folder.mkdir(parents=True)
    context = multiprocessing.get_context("spawn")  # a new process does not have the written files in its memory
    with context.Pool(1) as pool:
        options = pool.apply(write_released, (folder, size))
    read = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    command = [sys.executable, "-m", "jobs.convert", "--kind", "lion", "--dtype", dtype, *options]
    with subprocess.Popen([*command, "--out", str(folder / "runs")], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        report = json.loads(process.stdout.read().splitlines()[-1])
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    written = sum(file.stat().st_size for file in Path(report["path"]).rglob("*.safetensors"))
    shutil.rmtree(folder)
    return usage.ru_maxrss * 2**10, written, read


def measure(settings: Settings) -> Iterator[Figure | NotMeasured]:
    """Measure LION with Flan-T5-small and the released ViT; the files of XL would take 30 GB."""
    free = shutil.disk_usage(settings.work).free
    if settings.quick or free < _ROOM:
        why = (
            "takes a minute"
            if settings.quick
            else f"needs {_ROOM / 2**30:.0f} GiB of disk, {free / 2**30:.0f} are free"
        )
        yield NotMeasured("memory", why)
        return
    peak, written, _ = convert(settings.work / "released", "small", "float32")
    yield Figure("memory", "jobs.convert's peak memory, LION small, fp32", "the model that it writes", [peak / 2**30],
                 [written / 2**30], "GiB", "memory", goal=1.0)  # fmt: skip


if __name__ == "__main__":
    used, made, _ = convert(Path(sys.argv[1]), sys.argv[2], "float32")
    print(f"{sys.argv[2]}: peak memory {used / 2**30:.1f} GiB, the model that was written {made / 2**30:.1f} GiB")
