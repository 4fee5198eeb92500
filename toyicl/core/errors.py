"""Errors that a user can correct, each reported in one line."""

from typing import Any


class BadInput(ValueError):  # noqa: N818 (the name states what is wrong with the input)
    """A value that a user gave is not allowed; the message names it and what is allowed."""


class BadSetting(BadInput):
    """A setting is not allowed.

    `field` is the name of the setting, `owner` the settings class that it belongs to, or None if it
    belongs to none, `rule` what is allowed, and `value` what was given. Whoever knows under which
    name the user gave the setting, such as the command line, reports it with `under`.
    """

    def __init__(self, field: str, rule: str, value: Any, owner: type | None = None):
        self.field, self.rule, self.value, self.owner = field, rule, value, owner
        super().__init__(self.under(f"{owner.__name__}.{field}" if owner else field))

    def under(self, name: str) -> str:
        """The message in one line, with the setting under another name."""
        text = repr(self.value)
        value = " ".join(text.split()) if "\n" in text else text  # arrays have a line for each row
        return f"{name} must be {self.rule}, got {value}"

    def of(self, owner: type) -> "BadSetting":
        """The same error of a setting that belongs to a class."""
        return BadSetting(self.field, self.rule, self.value, owner)


class Unfinished(RuntimeError):  # noqa: N818 (the name states how far the run came)
    """A run could not be finished; the message states why, what is kept, and how to resume."""


class Interrupted(Unfinished):
    """The user, or the cluster, has interrupted a run, so that no other run should begin."""
