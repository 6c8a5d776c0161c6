#!/usr/bin/env bash
# tokenizers 0.23.3: WordPiece training gives another vocabulary in every process.
# Guess before the run: the trainer counts pairs and breaks ties by a fixed rule, so equal texts and settings give an
# equal vocabulary; BPE training of the same library does.
# Seen: eight processes give several vocabularies of the same size, which differ in their tokens, not only in the ids.
# Why it matters: a model trained from scratch with such a tokenizer cannot be made again by its own command.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check tokenizers==0.23.3
cat > "$folder/train.py" <<'PYTHON'
import sys

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

words = "red blue green circle square triangle small large left right above below the a of is there".split()
texts = [f"{a} {b} {c} {d}" for a in words for b in words for c in words[:6] for d in words[6:12]]
if sys.argv[1] == "wordpiece":
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=["[UNK]"], show_progress=False)
else:
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=["[UNK]"], show_progress=False)
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer.train_from_iterator(texts, trainer)
print(" ".join(sorted(tokenizer.get_vocab())))
PYTHON
for kind in wordpiece bpe; do
    for _ in 1 2 3 4 5 6 7 8; do "$folder/venv/bin/python" "$folder/train.py" "$kind"; done | sort -u > "$folder/$kind"
    echo "$kind: $(wc -l < "$folder/$kind") different vocabularies in 8 processes"
done
test "$(wc -l < "$folder/wordpiece")" -gt 1
test "$(wc -l < "$folder/bpe")" -eq 1
