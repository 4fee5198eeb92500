"""The errors of this package's own: what a user can mend, told in one line."""


class BadInput(ValueError):  # noqa: N818 (it names what is wrong, not that something is)
    """Something a user set is not allowed; the message names it, its value and what is allowed."""


class Unfinished(RuntimeError):  # noqa: N818 (it says where a run stands)
    """A run could not go on; the message says why, what is kept, and how to carry on."""
