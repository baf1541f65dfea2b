"""The errors that a user sees: what is wrong, where, and what to do about it.

Every refusal and failure of graphprune is a GraphPruneError with a code of `graphprune.codes`. The command line prints
it and exits with its `exit_code`; anything else that escapes is a defect of graphprune.
Imports nothing but codes and the standard library.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar

from graphprune.codes import CODES

LONGEST_LINE = 600
"""Characters of one printed line: names come from files, and a file can hold a name of any length."""


class GraphPruneError(Exception):
    """Something that the user can act on. `str(error)` is three lines: the fact, the place, the remedy.

    code:   a key of `graphprune.codes.CODES`; an unknown one is a ValueError, because the mistake is the caller's
    what:   the fact, in one sentence without a full stop, naming the value that is wrong
    where:  the place: a file, a node, a tensor and axis, an option; empty when the fact says it
    remedy: what to do; empty takes the remedy of the code

    >>> print(GraphPruneError("GP203", "no rule for operator com.example.Fold", "node 'fold_3'", "add a row for it"))
    GP203 no rule for operator com.example.Fold
      at  node 'fold_3'
      fix add a row for it
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, code: str, what: str, where: str = "", remedy: str = "") -> None:
        if code not in CODES:
            raise ValueError(f"{code!r} is not an error code: add a row for it to graphprune/codes/")
        super().__init__(code, what, where, remedy)
        self.code = code
        self.what = what
        self.where = where
        self.remedy = remedy or CODES[code].remedy

    def __str__(self) -> str:
        lines = [f"{self.code} {one_line(self.what)}"]
        if self.where:
            lines.append(f"  at  {one_line(self.where)}")
        lines.append(f"  fix {one_line(self.remedy)}")
        return "\n".join(lines)


class BudgetNotMet(GraphPruneError):
    """The model could be pruned, but not as far as was asked: the command line exits with 1, not 2."""

    exit_code: ClassVar[int] = 1


def one_line(text: str, longest: int = LONGEST_LINE) -> str:
    r"""`text` as one printable line: control characters escaped, the middle left out beyond `longest` characters.

    Names in a model file are chosen by whoever made the file; printed raw, they could forge lines of a report or send
    commands to the terminal.

    >>> one_line("conv1\nGP000 all is well")
    'conv1\\nGP000 all is well'
    """
    if len(text) > longest:
        half = longest // 2
        text = f"{text[:half]} ... {text[-half:]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A remedy for a name that is not known: the closest one if any is close, then all that are.

    >>> did_you_mean("widht", ["width", "clean"])
    "did you mean 'width'? known: clean, width"
    """
    names = sorted(known)
    if not names:
        return "there are none to choose from"
    close = get_close_matches(name, names, n=1)
    question = f"did you mean {close[0]!r}? " if close else ""
    return f"{question}known: {', '.join(names)}"
