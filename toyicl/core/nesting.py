"""Settings within settings, by their paths."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any


def nested(settings: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Settings and all settings within them, with their paths, such as "size_training."."""
    yield before, settings
    for part in fields(settings):
        value = getattr(settings, part.name)
        if is_dataclass(value):
            yield from nested(value, f"{before}{part.name}.")
