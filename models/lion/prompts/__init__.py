"""The prompt designs by their kind: a new design is one module of this folder and one line of `_DESIGNS`.

Imports neither torch nor transformers, so that a command line can check ``prompt.kind`` quickly.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.lion.prompts.base import PromptDesign

# A design, or the `module:class` of one, which is imported when it is first used.
_DESIGNS: "dict[str, PromptDesign | str]" = {
    "none": "models.lion.prompts.none:NoPrompt",
    "static": "models.lion.prompts.static:StaticPrompt",
    "dynamic": "models.lion.prompts.dynamic:DynamicPrompt",
    "both": "models.lion.prompts.both:StaticAndDynamicPrompt",
}
BUILT_IN: tuple[str, ...] = tuple(_DESIGNS)


def register_prompt(design: "PromptDesign") -> None:
    """Add a design under its kind.

    Call it in each process that builds, trains or loads a model with this prompt.

    Raises:
        ValueError: If its kind is taken, or one of its parameter groups is taken by other parameters.
    """
    from models.lion.groups import all_groups  # not at the top: it imports this module

    if design.kind in _DESIGNS:
        raise ValueError(f"The prompt kind {design.kind!r} is already registered; choose another name.")
    groups = prompt_groups()
    for name, pattern in design.groups.items():
        if groups.get(name, pattern) != pattern or name in set(all_groups()) - set(groups):
            raise ValueError(
                f"The prompt kind {design.kind!r} has the parameter group {name!r}, which LION or another prompt has "
                "for other parameters; choose another name."
            )
    _DESIGNS[design.kind] = design


def prompt_design(kind: str) -> "PromptDesign":
    """Return the design of a kind.

    Raises:
        ValueError: If no design has this kind.
    """
    if kind not in _DESIGNS:
        raise ValueError(f"prompt.kind is {kind!r}; choose one of {', '.join(_DESIGNS)}.")
    design = _DESIGNS[kind]
    if isinstance(design, str):
        module, _, name = design.partition(":")
        design = _DESIGNS[kind] = getattr(import_module(module), name)()
    return design


def prompt_kinds() -> tuple[str, ...]:
    """Return all registered kinds, the built-in ones first."""
    return tuple(_DESIGNS)


def prompt_groups(kinds: tuple[str, ...] | None = None) -> dict[str, str]:
    """Return the parameter groups of prompts: regular expressions of parameter names by group.

    Args:
        kinds: The prompts' kinds; None: all registered ones.
    """
    designs = [prompt_design(kind) for kind in (prompt_kinds() if kinds is None else kinds)]
    return {name: pattern for design in designs for name, pattern in design.groups.items()}


def prompt_parts() -> tuple[str, ...]:
    """Return the prefixes of the parameters that belong to any registered prompt."""
    return tuple(dict.fromkeys(part for kind in prompt_kinds() for part in prompt_design(kind).parts))


def released_prompt_names() -> tuple[tuple[str, str], ...]:
    """Return (released name, ours) of each prompt parameter that the released LION has."""
    return tuple(dict.fromkeys(pair for kind in prompt_kinds() for pair in prompt_design(kind).released_names.items()))
