"""Stacks of layers that a file holds one by one: ``lstm.0``, ``lstm.1``, ... are one LSTM."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

from fastlstm._quantized import Quantized
from fastlstm.weights.contents import Arrays, Found

_NUMBER = re.compile(r"0|[1-9][0-9]*")

#: Numbers of a name that may count layers, the last ones, and how long they may be.
_MOST_NUMBERS, _MOST_DIGITS, _LONGEST_NAME = 8, 6, 1000


def find_stacks(layers: Sequence[Found], owners: Container[str], note: str) -> tuple[Found, ...]:
    """Join single layers that are numbered one after the other and whose sizes fit.

    Parameters
    ----------
    layers : sequence of Found
        With unique names.
    owners : container of str
        Of `owners_of`, for what is no LSTM.
    note : str
        For each stack: what is assumed.

    Returns
    -------
    tuple of Found
        Stacks, each in the place of its first layer and with the layers as its parts, and all that
        are in no stack. Layers are one stack where their names are equal but for one number, the
        numbers follow each other without a gap, kind, sizes, directions, options and dtype are
        equal, the input of each is the output of the one below, and nothing else has a name under
        one of the numbers (``models.0.emb`` beside ``models.0.lstm``). So ``lstm.0, lstm.1`` are
        "lstm", and so are ``lstm1, lstm2``; ``rnn.0.cell, rnn.1.cell`` are "rnn.*.cell"; ``lstm,
        lstm_1`` are "lstm_*", since one of them is "lstm".
    """
    names = {layer.name for layer in layers}
    layers_in = Counter(owner for name in names for owner in owners_of([name]))
    candidates: dict[str, dict[int, Found]] = {}
    for layer in layers:
        for template, number in _templates(layer.name, names):
            candidates.setdefault(template, {}).setdefault(number, layer)
    stack_of: dict[str, Found] = {}
    # Innermost numbers first: of blocks.0.lstm.1 it is the last that counts layers.
    for template in sorted(candidates, key=lambda text: -text.rindex("*")):
        parts = [candidates[template][number] for number in sorted(candidates[template])]
        if any(part.name in stack_of for part in parts) or not _is_stack(candidates[template]):
            continue
        numbered = [(part.name, _numbered(template, part.name)) for part in parts]
        if any(at in owners or layers_in[at] > (at != name) for name, at in numbered):
            continue
        name = _stack_name(template, names)
        stack = replace(
            stacked(parts, [note], [note]), name=name, parts=tuple(parts), is_guess=True
        )
        names.add(stack.name)
        stack_of |= {part.name: stack for part in parts}
    result = dict.fromkeys(stack_of.get(layer.name, layer) for layer in layers)
    return tuple(result)


def _templates(name: str, names: set[str]) -> Iterator[tuple[str, int]]:
    """Yield the name with one number replaced by a star, and that number."""
    if len(name) > _LONGEST_NAME:
        return
    for number in list(_NUMBER.finditer(name))[-_MOST_NUMBERS:]:
        if len(number[0]) <= _MOST_DIGITS:
            yield f"{name[: number.start()]}*{name[number.end() :]}", int(number[0])
    if f"{name}_1" in names:  # Keras numbers so
        yield f"{name}_*", 0


def owners_of(names: Iterable[str]) -> dict[str, str]:
    """Return all that comes before a dot in names, and one of the names for each."""
    short = (name for name in names if len(name) <= _LONGEST_NAME)
    return {name[:at]: name for name in short for at, letter in enumerate(name) if letter == "."}


def _numbered(template: str, name: str) -> str:
    """Return the name up to the end of the component that has the number of the template."""
    after = template[template.rindex("*") + 1 :]
    rest = after[after.index(".") :] if "." in after else ""
    return name.removesuffix(rest)


def _is_stack(numbered: dict[int, Found]) -> bool:
    numbers = sorted(numbered)
    if len(numbers) < 2 or numbers[-1] - numbers[0] != len(numbers) - 1:
        return False
    first = numbered[numbers[0]]
    single = first.option("num_layers") == 1 and first.head is None and first.state is None
    return single and all(_fits(first, numbered[number]) for number in numbers[1:])


def _fits(first: Found, above: Found) -> bool:
    """Whether a layer has the first one's options, and its output for input."""
    return (
        above.options == {**first.options, "input_size": first.width}
        and above.bidirectional == first.bidirectional
        and above.kind == first.kind
        and above.stored_dtype == first.stored_dtype
        and above.head is None
        and above.state is None
    )


def _stack_name(template: str, names: set[str]) -> str:
    """Return what the names have in common, or with a star where that is a name itself."""
    common = template.removesuffix("*").rstrip("._/-") if template.endswith("*") else template
    return common if common and common not in names else template


def stacked(
    parts: Sequence[Found], notes: Iterable[str] = (), assumptions: Iterable[str] = ()
) -> Found:
    """Return layers that feed each other as one, with the options that its last layer has.

    It goes by the name of its first layer, which by itself then has an index behind its name.

    Parameters
    ----------
    parts : sequence of Found
        Of one layer each, from the lowest.
    notes, assumptions : iterable of str
        Beside those of the layers.
    """
    arrays: Arrays = {}
    for number, part in enumerate(parts):
        for key, array in part.arrays.items():
            arrays[key.replace("_l0", f"_l{number}")] = array
    first, last = parts[0], parts[-1]
    sizes = {"input_size": first.option("input_size"), "num_layers": len(parts)}
    return replace(
        first,
        options={**last.options, **sizes},
        arrays=arrays,
        notes=tuple(dict.fromkeys(chain(*(part.notes for part in parts), notes))),
        assumptions=tuple(dict.fromkeys(chain(*(part.assumptions for part in parts), assumptions))),
        parts=(replace(first, name=f"{first.name}[0]"), *parts[1:]),
        quantized=_joined(parts),
        widened=next((part.widened for part in parts if part.widened), ""),
    )


def _joined(parts: Sequence[Found]) -> Quantized | None:
    """Return the digits of a stack, if all of its layers have some, of as many bits."""
    of_parts = [part.quantized for part in parts if part.quantized is not None]
    if len(of_parts) < len(parts) or len({each.bits for each in of_parts}) > 1:
        return None
    return Quantized(of_parts[0].bits, tuple(chain(*(each.directions for each in of_parts))))
