"""`python -m jobs`: list the verbs."""

import ast
import sys
from pathlib import Path


def verbs() -> dict[str, str]:
    """Return each verb with the line that its module's docstring has about it. The modules are not imported."""
    lines = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        head, _, text = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0].partition("`: ")
        if text and head.startswith(f"`python -m jobs.{path.stem}"):
            lines[path.stem] = text.rstrip(".")
    return lines


def main() -> int:
    """Print the verbs, one per line."""
    lines = verbs()
    width = max(map(len, lines))
    print("python -m jobs.VERB [--config FILE.yaml] [--key value …]     (--help lists every key)\n")
    print("\n".join(f"  {name:<{width}}  {text}" for name, text in lines.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
