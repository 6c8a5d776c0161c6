#!/usr/bin/env bash
# safetensors 0.8.0 with PyTorch 2.13.0: loaded tensors start at addresses that are not aligned.
# Guess before the run: `load_file` gives tensors at 64-byte aligned addresses, as `torch.empty` does and as the format
# pads its header; save and load changes no output of a model.
# Seen: tensors are views of the mapped file, at multiples of 4 bytes. Matrix kernels of AVX-512 processors take
# another path for such addresses, so that equal weights give outputs that differ in the last digit (6e-8 here).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check safetensors==0.8.0 torch==2.13.0 numpy
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import safetensors.torch
import torch

saved = {"bias": torch.zeros(3), "weight": torch.zeros(64, 64), "other": torch.zeros(5, 7)}
safetensors.torch.save_file(saved, "model.safetensors")
loaded = safetensors.torch.load_file("model.safetensors")
for name, tensor in loaded.items():
    print(name, "allocated at", saved[name].data_ptr() % 64, "loaded at", tensor.data_ptr() % 64, "modulo 64")
assert all(tensor.data_ptr() % 64 == 0 for tensor in saved.values())
assert all(torch.equal(loaded[name], saved[name]) for name in saved)
assert any(tensor.data_ptr() % 16 for tensor in loaded.values())
PYTHON
