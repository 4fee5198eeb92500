"""JSON text that every parser reads."""

import json

import pytest

from toyicl.core import strict_json

BAD = [float("inf"), -float("inf"), float("nan")]


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("place", [lambda value: value, lambda value: [{"a": (1, value)}]])
def test_numbers_that_json_does_not_have_are_refused(value, place):
    document = place(value)
    assert not strict_json.is_finite(document)
    with pytest.raises(ValueError, match="not JSON compliant"):
        strict_json.text(document)
    assert json.loads(strict_json.text(strict_json.number(value))) == str(value)


def test_all_others_come_back():
    document = {"a": [1, 2.5, 1e308, None, True, "inf"], "b": {"c": []}}
    assert strict_json.is_finite(document)
    assert json.loads(strict_json.text(document, indent=1)) == document
    assert strict_json.number(1e308) == 1e308
