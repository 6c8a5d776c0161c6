#!/usr/bin/env bash
# transformers 5.23.0, Kosmos-2: a box that lies exactly on the grid of location tokens comes back a cell smaller each way.
# Guess before the run: corners on the borders of cells are exact, so that writing a box as tokens and reading the tokens
# gives the same box; blanks around the tokens do not matter.
# Seen: reading gives the centers of the two corner cells, and writing takes the cell behind the right and bottom border
# away, so an object of 8 x 8 cells becomes 7 x 7 (IoU 0.77). A blank inside <object> makes the entity disappear.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check transformers==5.23.0 numpy pillow
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import inspect

from transformers.models.kosmos2 import processing_kosmos2 as kosmos2

cells = 32
first, second = kosmos2.coordinate_to_patch_index((8 / cells, 8 / cells, 16 / cells, 16 / cells), cells)
box = kosmos2.patch_index_to_coordinate(first, second, cells)
side = (box[2] - box[0]) * cells
print("tokens", first, second, "box", box, "side in cells", side)
assert side == 7
overlap = (side / 8) ** 2
print("IoU with itself", overlap)
assert overlap < 0.77
tokens = f"<patch_index_{first:04d}><patch_index_{second:04d}>"
_, entities = kosmos2.clean_text_and_extract_entities_with_bboxes(f"<phrase>a dog</phrase><object>{tokens}</object>")
_, blank = kosmos2.clean_text_and_extract_entities_with_bboxes(f"<phrase>a dog</phrase><object> {tokens} </object>")
print("without blanks", entities, "with blanks", blank)
assert [name for name, _, _ in entities] == ["a dog"]
assert not [boxes for _, _, boxes in blank if boxes]
PYTHON
