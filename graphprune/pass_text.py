r"""The text form of passes and their options, as the command line, configuration and reports write it.

    pipeline ::= call ("," call)*                            clean,width{macs=0.6}
    call     ::= word [ "{" [ option ("," option)* ] "}" ]   width{macs=0.6, only=[conv1.weight, 'a b']}
    option   ::= word "=" value                              a field; - and _ are the same in its name
    value    ::= atom | "[" [ atom ("," atom)* ] "]"
    atom     ::= word | quoted
    word     ::= characters except spaces and { } [ ] , = ' "
    quoted   ::= text in ' or ", in which \ takes the next character as it is

This module knows text and Python types, not passes. It imports errors.py and the standard library.
"""

import re
import typing
from collections.abc import Callable
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, Union

from graphprune.errors import GraphPruneError

_TOKEN = re.compile(
    r"""\s* (?: (?P<quoted> '(?:[^'\\]|\\.)*' | "(?:[^"\\]|\\.)*" )
              | (?P<mark> [{}\[\],=] )
              | (?P<word> [^\s{}\[\],='"]+ )
              | (?P<end> \Z ) )""",
    re.VERBOSE | re.DOTALL,
)
_WORD = re.compile(r"""[^\s{}\[\],='"]+""")


@dataclass(frozen=True)
class Atom:
    """One value as written. Being quoted tells the texts '3' and 'none' from the values 3 and none."""

    text: str
    quoted: bool = False


Value = Atom | tuple[Atom, ...]


@dataclass(frozen=True)
class Call:
    """A pass and its options as written: names and values, not yet typed."""

    name: str
    options: dict[str, Value]


def parse(text: str) -> tuple[Call, ...]:
    """Read a pipeline. Raises GraphPruneError GP107 with the column at which the text stops making sense.

    >>> [call.name for call in parse("clean, width{macs=0.6}")]
    ['clean', 'width']
    """
    return _Reader(text).pipeline()


def convert(value: Value, wanted: Any) -> Any:
    """`value` as the type `wanted`: bool, int, float, str, None, Literal, tuple[T, ...], or a union of these.

    Raises ValueError when the value is not one, and TypeError when the type has no text form.

    >>> convert(Atom("0.6"), float | None)
    0.6
    >>> convert(Atom("conv1.weight"), tuple[str, ...])
    ('conv1.weight',)
    """
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (Union, UnionType):
        return _first_that_fits(value, wanted)
    if origin is tuple and arguments[1:] == (Ellipsis,):
        return tuple(convert(atom, arguments[0]) for atom in (value if isinstance(value, tuple) else (value,)))
    if origin is Literal:
        choices = {str(choice): choice for choice in arguments}
        if isinstance(value, Atom) and value.text in choices:
            return choices[value.text]
    elif wanted not in _READ:
        raise TypeError(f"{spell_type(wanted)} has no text form")
    elif isinstance(value, Atom) and (wanted is str or not value.quoted):
        try:
            return _READ[wanted](value.text)
        except (KeyError, ValueError):
            pass  # told below, in the same words for every type
    raise _unfit(value, wanted)


def spell_value(value: object) -> str:
    """The text that `convert` reads back as `value`.

    >>> spell_value(("conv1.weight", "a b", "none"))
    "[conv1.weight, 'a b', 'none']"
    """
    if isinstance(value, tuple):
        return f"[{', '.join(map(spell_value, value))}]"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and (not _WORD.fullmatch(value) or _reads_as_another_type(value)):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    return str(value)


def spell_type(wanted: Any) -> str:
    """A type in the words of someone who writes the text.

    >>> spell_type(float | None)
    'a number or none'
    """
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin in (Union, UnionType):
        return " or ".join(map(spell_type, arguments))
    if origin is tuple:
        return "a list in [ ], each " + " and ".join(spell_type(each) for each in arguments if each is not Ellipsis)
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", NoneType: "none"}
    return words.get(wanted) or str(getattr(wanted, "__name__", wanted))


_READ: dict[Any, Callable[[str], Any]] = {
    NoneType: {"none": None}.__getitem__,
    bool: {"true": True, "false": False}.__getitem__,
    int: int,
    float: float,
    str: str,
}
"""How an atom is read as each type: from the type that fits the fewest atoms to the one that fits them all."""


def _first_that_fits(value: Value, union: Any) -> Any:
    order = {wanted: place for place, wanted in enumerate(_READ)}  # others, such as lists, after these
    for wanted in sorted(typing.get_args(union), key=lambda wanted: order.get(wanted, len(order))):
        try:
            return convert(value, wanted)
        except ValueError:
            continue
    raise _unfit(value, union)


def _unfit(value: Value, wanted: Any) -> ValueError:
    shown = "a list" if isinstance(value, tuple) else repr(value.text)
    return ValueError(f"must be {spell_type(wanted)}, not {shown}")


def _reads_as_another_type(text: str) -> bool:
    for wanted in (NoneType, bool, float):
        try:
            _READ[wanted](text)
        except (KeyError, ValueError):
            continue
        return True
    return False


class _Reader:
    """Recursive descent over the grammar above, one token ahead: `kind` and `text` are the token at `start`."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.end = 0
        self.advance()

    def advance(self) -> None:
        match = _TOKEN.match(self.source, self.end)
        if match is None:  # only an opening quotation mark fits nothing
            self.start = self.end
            self.kind, self.text = "end", ""
            self.fail("a closing quotation mark")
        self.kind = str(match.lastgroup)
        self.text = match[self.kind]
        self.start, self.end = match.start(self.kind), match.end()

    def fail(self, wanted: str) -> NoReturn:
        found = repr(self.text) if self.kind != "end" else "the end"
        raise GraphPruneError(
            "GP107",
            f"expected {wanted}, found {found}",
            f"column {self.start + 1} of the pipeline {self.source!r}",
            "write passes as name{option=value, option=value}, separated by commas",
        )

    def take(self, kind: str, wanted: str) -> str:
        if self.kind != kind:
            self.fail(wanted)
        text = self.text
        self.advance()
        return text

    def skip(self, mark: str) -> bool:
        """Whether the token is `mark`, which is then passed over."""
        found = self.kind == "mark" and self.text == mark
        if found:
            self.advance()
        return found

    def need(self, mark: str, wanted: str) -> None:
        if not self.skip(mark):
            self.fail(wanted)

    def pipeline(self) -> tuple[Call, ...]:
        calls = [self.call()]
        while self.skip(","):
            calls.append(self.call())
        if self.kind != "end":
            self.fail("a comma or the end")
        return tuple(calls)

    def call(self) -> Call:
        name = self.take("word", "the name of a pass")
        options: dict[str, Value] = {}
        if self.skip("{") and not self.skip("}"):
            self.option(options)
            while self.skip(","):
                self.option(options)
            self.need("}", "a comma or }")
        return Call(name, options)

    def option(self, options: dict[str, Value]) -> None:
        column = self.start
        name = self.take("word", "the name of an option").replace("-", "_")
        if name in options:
            where = f"column {column + 1} of the pipeline {self.source!r}"
            raise GraphPruneError("GP107", f"the option {name} is given twice", where, "give it once")
        self.need("=", "= and a value")
        options[name] = self.value()

    def value(self) -> Value:
        if not self.skip("["):
            return self.atom()
        if self.skip("]"):
            return ()
        atoms = [self.atom()]
        while self.skip(","):
            atoms.append(self.atom())
        self.need("]", "a comma or ]")
        return tuple(atoms)

    def atom(self) -> Atom:
        if self.kind == "quoted":
            return Atom(re.sub(r"\\(.)", r"\1", self.take("quoted", "")[1:-1], flags=re.DOTALL), quoted=True)
        return Atom(self.take("word", "a value"))
