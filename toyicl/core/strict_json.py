"""JSON as the standard has it: parsers of other languages refuse infinities and NaN."""

import json
import math
from typing import Any


def text(document: Any, **layout: Any) -> str:
    """A document as JSON text; `layout` are the options of `json.dumps`, such as `indent`.

    Raises ValueError for infinities and NaN.
    """
    return json.dumps(document, allow_nan=False, **layout)  # noqa: TID251 (the one place)


def number(value: float) -> float | str:
    """A number, or its name, such as "inf", if JSON cannot represent it."""
    return value if math.isfinite(value) else str(value)


def is_finite(document: Any) -> bool:
    """Whether all numbers of a document are finite, so that it can be written."""
    if isinstance(document, dict):
        return all(map(is_finite, document.values()))
    if isinstance(document, list | tuple):
        return all(map(is_finite, document))
    return not isinstance(document, float) or math.isfinite(document)
