"""Passes and pipelines: steps from a model to a model, and the runner that holds them to what they promise.

A pass is a frozen dataclass; its fields are its options, so that one definition gives the Python interface, the text
`width{macs=0.6}`, the printed form and the help. A pipeline is a sequence of passes that checks each step and says
which one failed. Neither knows what a model is: whatever a dialect works on passes through.
Imports errors.py, pass_text.py and registry.py.
"""

import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from types import TracebackType
from typing import Any, ClassVar, Self

from graphprune.errors import GraphPruneError, did_you_mean
from graphprune.pass_text import Call, convert, parse, spell_type, spell_value
from graphprune.registry import Registry


@dataclass(frozen=True)
class PassResult:
    """What a pass, or a whole pipeline, made of a model."""

    model: Any
    """Of the same type as the model that went in."""
    modified: bool
    """Whether the model is a changed one; when False, `model` is the very object that went in."""
    report: Any = None
    """What was done and what was not, with reasons; `str(report)` is for people. A pipeline reports one Step a pass."""


@dataclass(frozen=True)
class Pass(ABC):
    """One step from a model to a model. To write one, subclass this as a frozen dataclass:

        @dataclass(frozen=True)
        class Halve(Pass):
            \"\"\"Remove half of the channels of every group.\"\"\"

            name: ClassVar[str] = "halve"
            share: float = 0.5      # the text form is halve{share=0.5}

    and register it under its name, in `graphprune.passes.PASSES` or as an entry point. Options are bool, int, float,
    str, Literal, tuple[T, ...] or a union of these with None; `__post_init__` refuses bad values with GP107. A pass has
    no other state: the same options and the same model give the same result.
    """

    name: ClassVar[str]

    @abstractmethod
    def apply(self, model: Any) -> PassResult:
        """Make a changed copy of `model`, or return `model` itself with modified=False.

        The model that comes in is never changed: later steps and the verification compare with it.
        Raises GraphPruneError when the pass cannot do what its options ask for.
        """

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The pass that `text` describes: `name{option=value, ...}`, the reverse of `str()`.

        Raises GraphPruneError: GP106 for an unknown option or another pass's name, GP107 for a value of the wrong kind.
        """
        calls = parse(text)
        if len(calls) != 1 or calls[0].name != cls.name:
            raise GraphPruneError("GP106", f"{text!r} is not the pass {cls.name}", remedy=f"write {cls.name}{{...}}")
        return cls._from_call(calls[0])

    @classmethod
    def _from_call(cls, call: Call) -> Self:
        types = typing.get_type_hints(cls)
        known = [option.name for option in fields(cls) if option.init]
        values = {}
        for option, value in call.options.items():
            where = f"option {option} of the pass {cls.name}"
            if option not in known:
                raise GraphPruneError("GP106", f"unknown option {option!r}", where, did_you_mean(option, known))
            try:
                values[option] = convert(value, types[option])
            except ValueError as error:
                raise GraphPruneError("GP107", f"{option} {error}", where) from None
            except TypeError:
                shown = spell_type(types[option])
                raise GraphPruneError(
                    "GP107", f"{option} is a {shown}, which cannot be written as text", where, "make the pass in Python"
                ) from None
        missing = [option.name for option in fields(cls) if _required(option) and option.name not in values]
        if missing:
            raise GraphPruneError("GP107", f"the pass {cls.name} needs a value for {', '.join(missing)}", call.name)
        return cls(**values)

    def __str__(self) -> str:
        """The text form, with the options that differ from their defaults."""
        shown = [
            f"{option.name}={spell_value(getattr(self, option.name))}"
            for option in fields(self)
            if option.init and getattr(self, option.name) != option.default
        ]
        return f"{self.name}{{{', '.join(shown)}}}" if shown else self.name


@dataclass(frozen=True)
class Step:
    """What one pass of a pipeline did."""

    text: str
    """The pass in its text form."""
    modified: bool
    report: Any

    def __str__(self) -> str:
        outcome = str(self.report) if self.report is not None else "changed the model" if self.modified else "no change"
        return f"{self.text}: {outcome}"


@dataclass(frozen=True)
class Pipeline:
    """Passes, one after another, each held to its contract.

    verify_between: called after every step that changed the model, as verify_between(model before, PassResult); it
                    raises to reject the step. None trusts the passes.
    fingerprint:    a value that changes with the content of a model, such as a hash of its serialized form. With it the
                    pipeline also finds a pass that changed its input, or calls an equal copy modified.
    """

    passes: Sequence[Pass]
    verify_between: Callable[[Any, PassResult], object] | None = None
    fingerprint: Callable[[Any], object] | None = None

    @classmethod
    def from_text(cls, text: str, registry: Registry, **checks: Any) -> Self:
        """The pipeline that `text` describes, with passes found in `registry`; `checks` are the other fields.

        Raises GraphPruneError: GP106 for an unknown pass or option, GP107 for bad text or values, GP110 and GP111 as
        Registry.load does.
        """
        return cls(tuple(_load(call, registry) for call in parse(text)), **checks)

    def apply(self, model: Any) -> PassResult:
        """Run every pass. The report is a tuple of one Step a pass.

        Raises what a pass raises, with the failing step named in `where` or in a note, and GP902 when a pass breaks its
        contract.
        """
        steps: list[Step] = []
        start = model
        for step in self.passes:
            with _Named(step, steps, len(self.passes)):
                model = self._run(step, model, steps)
        return PassResult(model, model is not start, tuple(steps))

    def __str__(self) -> str:
        return ",".join(map(str, self.passes))

    def _run(self, step: Pass, model: Any, steps: list[Step]) -> Any:
        before = self.fingerprint(model) if self.fingerprint else None
        result = step.apply(model)
        _check_contract(step, model, result)
        if self.fingerprint:
            _check_fingerprints(step, result.modified, before, self.fingerprint(model), self.fingerprint(result.model))
        if result.modified and self.verify_between:
            self.verify_between(model, result)
        steps.append(Step(str(step), result.modified, result.report))
        return result.model


def _required(option: Field[Any]) -> bool:
    return option.init and option.default is MISSING and option.default_factory is MISSING


def _load(call: Call, registry: Registry) -> Pass:
    found = registry.load(call.name)
    if not (isinstance(found, type) and issubclass(found, Pass)):
        raise GraphPruneError("GP902", f"{call.name!r} in {registry.group} is not a subclass of Pass", repr(found))
    return found._from_call(call)


def _check_contract(step: Pass, model: Any, result: object) -> None:
    """Raise GP902, in words for the author of the pass, when `result` is not what Pass.apply promises."""
    if not isinstance(result, PassResult):
        raise _broken(step, f"returned a {type(result).__name__}", "return PassResult(model, modified, report)")
    if type(result.model) is not type(model):
        changed = f"turned a {type(model).__name__} into a {type(result.model).__name__}"
        raise _broken(step, changed, "return a model of the type that came in")
    if result.modified and result.model is model:
        raise _broken(step, "says modified=True and returned its input", "change a copy and return that")
    if not result.modified and result.model is not model:
        raise _broken(step, "says modified=False and returned another model", "return the model that came in")


def _check_fingerprints(step: Pass, modified: bool, before: object, after: object, returned: object) -> None:
    if before != after:
        raise _broken(step, "changed the model that came in", "change a copy and return that")
    if modified and returned == before:
        raise _broken(step, "says modified=True and returned an equal copy", "return the input with modified=False")


def _broken(step: Pass, what: str, remedy: str) -> GraphPruneError:
    return GraphPruneError("GP902", f"the pass {step.name} {what}", type(step).__qualname__, f"in the pass: {remedy}")


class _Named:
    """While a step runs: adds to an error which step of the pipeline it came from."""

    def __init__(self, step: Pass, done: Sequence[Step], total: int) -> None:
        after = f", after {', '.join(previous.text for previous in done)}" if done else ""
        self.place = f"step {len(done) + 1} of {total}: {step}{after}"

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, GraphPruneError):
            error.where = f"{error.where}, in {self.place}" if error.where else self.place
        elif error is not None:
            error.add_note(f"in {self.place}")
