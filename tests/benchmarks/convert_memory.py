"""Memory and time of jobs.convert at real size, over files of the released shapes that are filled with zeros.

    python -m tests.benchmarks.convert_memory DIR [--size xl] [--dtype float32]

DIR needs some 30 GB for xl. The conversion runs in a process of its own; its peak is the kernel's count of resident
memory, the pages of memory-mapped input files included.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

SHARD_BYTES = 5 * 10**9


def released_shapes(size: str) -> dict[str, tuple[int, ...]]:
    """Shape by released name of everything that a LION of this size is converted from."""
    from models.lion import LionConfig
    from models.lion.conversion import expected_shapes
    from models.lion.naming import to_released

    config = LionConfig.preset(size)
    found: dict[str, tuple[int, ...]] = {}
    for name, shape in expected_shapes(config).items():
        if name.endswith("qkv.bias"):
            stem = to_released(name.replace("qkv.bias", "qkv.weight"), config.adapters).removesuffix("qkv.weight")
            found |= {f"{stem}{half}_bias": (shape[0] // 3,) for half in "qv"}
        else:
            found[to_released(name, config.adapters)] = shape
    return found


def _zeros(shapes: dict[str, tuple[int, ...]], dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    return ((name, torch.zeros(shape, dtype=dtype)) for name, shape in shapes.items())


def write_released(folder: Path, size: str) -> list[str]:
    """LION's file (fp32) and EVA-ViT-g with its 40th block (fp16) as .pth, Flan-T5 in fp32 shards, small tokenizers.

    Returns:
        The options of jobs.convert that name them.
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


def main() -> None:
    """Writes the files, converts them, prints one line of a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=("xl", "xxl"), default="xl")
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    from pipelines.steps import git_commit

    args.folder.mkdir(parents=True)
    context = multiprocessing.get_context("spawn")  # what was written is out of memory before the conversion begins
    with context.Pool(1) as pool:
        options = pool.apply(write_released, (args.folder, args.size))
    command = [sys.executable, "-m", "jobs.convert", "--kind", "lion", "--dtype", args.dtype, *options]
    started = time.monotonic()
    with subprocess.Popen([*command, "--out", str(args.folder / "runs")], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.read().splitlines()[-1])
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds, peak = time.monotonic() - started, usage.ru_maxrss / 2**20
    print(f"{os.cpu_count()} cores, commit {git_commit()}")
    print("| size | parameters | written as | peak memory GiB | seconds |\n|---|---|---|---|---|")
    print(f"| {args.size} | {told['parameters']:,} | {args.dtype} | {peak:.1f} | {seconds:.0f} |")


if __name__ == "__main__":
    main()
