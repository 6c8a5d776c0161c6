#!/usr/bin/env bash
# transformers 5.23.0: `resize_token_embeddings` on a Flan-T5 replaces its output layer by its input embeddings, silently.
# Guess before the run: Flan-T5 has an output layer separate from its embeddings (tie_word_embeddings is false in its
# config), and resizing keeps the rows of both that exist before and after.
# Seen: the output layer of the resized model equals the input embeddings; no warning is printed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check transformers==5.23.0 torch==2.13.0 numpy
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from transformers import T5Config, T5ForConditionalGeneration

torch.manual_seed(0)
config = T5Config(
    vocab_size=64, d_model=16, d_kv=4, d_ff=32, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu",
    tie_word_embeddings=False,
)
model = T5ForConditionalGeneration(config)
with torch.no_grad():
    model.lm_head.weight = torch.nn.Parameter(torch.randn(64, 16))
head = model.lm_head.weight.detach().clone()
print("separate before:", not torch.equal(head, model.shared.weight))
model.resize_token_embeddings(70)
after = model.lm_head.weight.detach()
print("head kept:", torch.equal(after[:64], head), "head equals embeddings:", torch.equal(after, model.shared.weight))
assert not torch.equal(after[:64], head)
assert torch.equal(after, model.shared.weight)
PYTHON
