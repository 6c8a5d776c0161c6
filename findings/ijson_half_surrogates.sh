#!/usr/bin/env bash
# ijson 3.6.0: the default C backend reads half a surrogate pair in another way than its Python backend and `json`.
# Guess before the run: all three keep the code point, as `json` does; backends differ in speed alone.
# Seen: yajl2_c gives "?" for a lone high half, silently, and refuses the whole file for a lone low half.
# Why it matters: annotation files written by JavaScript cut captions inside an emoji; the cut character changes silently.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check ijson==3.6.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import importlib
import io
import json

high, low = rb'["a \ud83d b"]', rb'["a \ude00 b"]'


def read(backend, text):
    module = importlib.import_module(f"ijson.backends.{backend}")
    try:
        return list(module.items(io.BytesIO(text), "item"))
    except UnicodeDecodeError as error:
        return type(error).__name__


seen = {(backend, text): read(backend, text) for backend in ("yajl2_c", "python") for text in (high, low)}
for key, value in seen.items():
    print(key, ascii(value))
assert json.loads(high) == seen["python", high] == ["a \ud83d b"]
assert json.loads(low) == seen["python", low] == ["a \ude00 b"]
assert seen["yajl2_c", high] == ["a ? b"]
assert seen["yajl2_c", low] == "UnicodeDecodeError"
PYTHON
