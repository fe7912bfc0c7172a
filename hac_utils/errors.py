"""The one error a user can meet: what is wrong, where, and how to fix it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class HacError(Exception):
    """A problem in what the user gave us. The command line prints it and exits with code 2.

    Parameters
    ----------
    what : str
        What is wrong, with the actual values.
    where : str
        The file, column, parameter or option.
    fix : str
        What to do about it, a command when there is one.
    """

    def __init__(self, what: str, where: str = "", fix: str = "") -> None:
        super().__init__(what, where, fix)
        self.what, self.where, self.fix = what, str(where), fix

    def __str__(self) -> str:
        lines = [f"error: {self.what}"]
        if self.where:
            lines.append(f"where: {self.where}")
        if self.fix:
            lines.append(f"fix:   {self.fix}")
        return "\n".join(lines)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"did you mean 'x'?"`` for the nearest known name, else the list of known names."""
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"


def first_few(items: Sequence, n: int = 5) -> str:
    """``"3 (a, b, c)"`` or ``"90 (first 5: a, b, c, d, e)"`` — for naming offenders in errors."""
    shown = ", ".join(str(i) for i in items[:n])
    return f"{len(items)} ({shown})" if len(items) <= n else f"{len(items)} (first {n}: {shown})"
