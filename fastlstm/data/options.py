"""How a table becomes windows: what a model's file has to remember, to forecast from another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fastlstm._arguments import as_flag, as_size
from fastlstm.data.gaps import METHODS
from fastlstm.data.times import AGGREGATES, Rule


@dataclass(frozen=True)
class WindowOptions:
    """The options of `windows`, checked, with the names of the columns as text.

    Raises
    ------
    TypeError, ValueError
        If one is not as `windows` describes it.
    """

    targets: tuple[str, ...]
    inputs: tuple[str, ...]
    future: tuple[str, ...] = ()
    length: int = 1
    horizon: int = 1
    group: str | None = None
    time: str | None = None
    resample: str | None = None
    aggregate: str | dict[str, str] = "mean"
    missing: str = "error"
    indicator: bool = False
    difference: int = 0
    scaling: bool = True

    def __post_init__(self) -> None:
        fix = object.__setattr__
        for name in ("targets", "inputs", "future"):
            fix(self, name, as_names(name, getattr(self, name)))
        for name in ("group", "time"):
            value = getattr(self, name)
            fix(self, name, value if value is None else str(value))
        fix(self, "length", as_size("length", self.length))
        fix(self, "horizon", as_size("horizon", self.horizon))
        if self.difference != 0:
            fix(self, "difference", as_size("difference", self.difference))
        fix(self, "indicator", as_flag("indicator", self.indicator))
        fix(self, "scaling", as_flag("scaling", self.scaling))
        if not self.targets:
            raise ValueError("targets: got none, expected names of columns")
        if not (self.inputs or self.future):
            raise ValueError("inputs: got none, expected names of columns")
        for name in ("group", "time"):
            for role in ("targets", "inputs", "future"):
                if (column := getattr(self, name)) in getattr(self, role):
                    raise ValueError(f"{role}: {column!r} is {name}, expected another column")
        if self.future and self.horizon > self.length:
            raise ValueError(
                f"length: got {self.length}, expected at least the horizon, {self.horizon}, where "
                "there are future inputs: each step reads what lies a horizon ahead of it"
            )
        if self.missing not in METHODS:
            raise ValueError(f"missing: got {self.missing!r}, expected one of {', '.join(METHODS)}")
        if self.rule is None and self.aggregate != "mean":
            raise ValueError("aggregate: needs resample=, whose rows it puts together")
        hows = self.aggregate
        for how in hows.values() if isinstance(hows, Mapping) else [hows]:
            if how not in AGGREGATES:
                raise ValueError(f"aggregate: got {how!r}, expected one of {', '.join(AGGREGATES)}")
        if isinstance(hows, Mapping):
            if unknown := [str(name) for name in hows if str(name) not in self.columns]:
                raise ValueError(f"aggregate: {unknown[0]!r} is no column that is read")
            fix(self, "aggregate", {str(name): how for name, how in hows.items()})

    @property
    def rule(self) -> Rule | None:
        """Of `resample`."""
        return None if self.resample is None else Rule.parse(self.resample)

    @property
    def columns(self) -> dict[str, str]:
        """The columns of numbers, with the argument that asks for each first."""
        columns: dict[str, str] = {}
        for role in ("targets", "inputs", "future"):
            for name in getattr(self, role):
                columns.setdefault(name, role)
        return columns

    @property
    def features(self) -> tuple[str, ...]:
        """Names of what each step of a window holds."""
        future = [f"{name}+{self.horizon}" for name in self.future]
        missing = [f"{name} missing" for name in self.inputs] if self.indicator else []
        return (*self.inputs, *future, *missing)

    def as_mapping(self) -> dict[str, Any]:
        """Return them as JSON has them; ``WindowOptions(**mapping)`` is the same again."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }


def as_names(argument: str, value: Any) -> tuple[str, ...]:
    """Return one name of a column, or several, as text; raise if they are none, or not distinct."""
    if isinstance(value, str | int | np.integer):
        value = (value,)
    if not isinstance(value, Iterable):
        raise TypeError(f"{argument}: got {value!r}, expected names of columns")
    names = tuple(map(str, value))
    if len(set(names)) < len(names):
        raise ValueError(f"{argument}: got {', '.join(map(repr, names))}, expected each once")
    return names
