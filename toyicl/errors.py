"""The one error of this package's own."""


class BadInput(ValueError):  # noqa: N818 (it names what is wrong, not that something is)
    """Something a user set is not allowed; the message names it, its value and what is allowed."""
