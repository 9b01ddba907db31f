"""Tables as people have them: what is read, what is decided aloud, what is refused and where."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest

from fastlstm.cli import _tables
from fastlstm.cli._messages import UserError
from fastlstm.cli._tables import Reading, Table, read_table
from support.arrays import assert_same_bits

pytestmark = [pytest.mark.default_isa, pytest.mark.wheel]


def read(
    text: str | bytes, columns: str | None = None, size: int | None = None, **reading: Any
) -> Table:
    data = text if isinstance(text, bytes) else text.encode()
    return read_table(io.BytesIO(data), "x.csv", Reading(**reading), columns, size)


TWO = [[1.0, 2.5], [3.0, 4.0]]


@pytest.mark.parametrize(
    "text",
    [
        "1,2.5\n3,4\n",
        "1;2.5\n3;4\n",
        "1\t2.5\n3\t4\n",
        "1|2.5\n3|4\n",
        "1 2.5\n3 4\n",
        "   1    2.5\n   3    4  \n",
        "1;2,5\n3;4\n",
        "1,0 2,5\n3,0 4,0\n",
        '"1,0","2,5"\n"3,0","4,0"\n',
        "a, b\r\n1, 2.5\r\n3, 4\r\n",
        "a\t b\n1\t 2.5\n3\t 4\n",
        "a,b\r1,2.5\r3,4\r",
        "a,b\n\n1,2.5\n\n\n3,4\n",
        "a,b,\n1,2.5,\n3,4,\n",
        "# made by hand\n# a b\n1 2.5\n3 4\n",
        "sep=;\na;b\n1;2,5\n3;4\n",
        '"a\nb",c\n1,2.5\n3,4\n',
        ",0,1\n0,1,2.5\n1,3,4\n",
        "Unnamed: 0,a,b\n5,1,2.5\n9,3,4\n",
        '"a" "b"\n"1" 1 2.5\n"2" 3 4\n',
        "a,date,b\n1,2020-01-01,2.5\n3,2020-01-02,4\n",
        "01.02.2020 12:00;1,0;2,5\n02.02.2020 12:00;3,0;4,0\n",
        "2020-01-01 10:00:00 1 2.5\n2020-01-01 10:00:01 3 4\n",
        "Jan 1 2020,1,2.5\nFeb 2 2020,3,4\n",
        "2020-01-01T10:00:00.5Z,1,2.5\n2020-01-01T10:00:01+02:00,3,4\n",
        "date,a,b\n20200101,1,2.5\n20200102,3,4\n",
        "2020Q1,1,2.5\n2020Q2,3,4\n",
        "index,a,b\n0,1,2.5\n1,3,4\n",
        "+1,2.5e0\n3.,04\n",
    ],
)
def test_forms(text: str) -> None:
    """The same numbers in many forms."""
    assert read(text).numbers.tolist() == TWO


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_more_lines_than_are_looked_at(end: str) -> None:
    """Where the last line that is looked at is half of a record, too."""
    lines = ["a;b", *(f'{i};"{i},5"' for i in range(1, 198)), *('1;"', '2,5"') * 300]
    expected = [*([i, i + 0.5] for i in range(1, 198)), *([1.0, 2.5],) * 300]
    assert read(end.join(lines)).numbers.tolist() == expected


def test_lines_of_numbers_alone_are_read_as_any_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block at a time, unless there is something else in it: errors tell the right line."""
    lines = [f"{i},{i / 3!r}" for i in range(1000)]
    monkeypatch.setattr(_tables, "_BLOCK", 64)
    expected = np.array([[i, i / 3] for i in range(1000)])
    assert_same_bits(read("\n".join(lines)).numbers, expected)
    lines[100:100] = ["", ""]
    lines[700] = '"698",' + f"{698 / 3!r}"
    assert_same_bits(read("\n".join(lines)).numbers, expected)
    for place, text, words in (
        (650, "1,2,3", "line 652: has 3 fields, expected 2"),
        (650, "1,", "line 652, column 3: column 2 (b) is empty"),
        (650, "1,nan", "line 652, column 3: column 2 (b) is nan"),
        (650, "1_0,2", "line 652, column 1: column 1 (a) is '1_0'"),
        (900, "1,x", "line 902, column 3: column 2 (b) is 'x'"),
    ):
        damaged = ["a,b", *lines]
        damaged[place + 1] = text
        with pytest.raises(UserError) as error:
            read("\n".join(damaged))
        assert words in str(error.value)


def test_the_minus_of_typesetters() -> None:
    assert read("\N{MINUS SIGN}1,2.5\n3,4\n").numbers.tolist() == [[-1.0, 2.5], [3.0, 4.0]]


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252", "latin-1"]
)
def test_encodings(encoding: str) -> None:
    data = "grö\xdfe,b\n1,2.5\n3,4\n".encode(encoding)
    table = read(data)
    assert table.numbers.tolist() == TWO
    assert bool(table.notes) == (encoding in ("cp1252", "latin-1"))
    assert read(data, "b,grö\xdfe").numbers.tolist() == [[2.5, 1.0], [4.0, 3.0]]
    assert read("größe;b\n1;2,5\n3;4\n".encode("utf-16-le")).numbers.tolist() == TWO


@pytest.mark.parametrize(
    "data",
    [
        "a,b\n1,2\n".encode("utf-16")[:-1],
        b"\xff\xfea\0,\0b!h\xdf",
        b"# a b\n",
        b"a,b\n" + b"1" * 200_000 + b",2\n",
        bytes(range(256)),
    ],
)
def test_what_is_no_table(data: bytes) -> None:
    with pytest.raises(UserError, match=r"^x\.csv: "):
        read(data)


def test_numbers_are_read_as_python_reads_them() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 3)) * 10.0 ** rng.integers(-300, 300, (500, 3))
    for delimiter, comma in ((",", "."), (";", ","), ("\t", ",")):
        lines = [delimiter.join(repr(float(n)).replace(".", comma) for n in row) for row in x]
        assert_same_bits(read("\n".join(lines)).numbers, x)
    assert read("1e999,-inf\n2,Infinity\n").numbers.tolist() == [
        [math.inf, -math.inf],
        [2.0, math.inf],
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a;b\n1,234;5,678\n", "got numbers as '1,234'; use --decimal"),
        ("a;b\n1,25;5.5\n", "got numbers as '1,25' and '5.5'; use --decimal"),
        ("value\n1,5\n2,5\n", "fields may end at ',' or the end of a line, use --delimiter"),
        ("0,1\n0.5,2\n3,4\n", "line 1 numbers the columns from 0 up"),
        ("1,,3\n4,5,6\n", "line 1 holds numbers and an empty field: are these names? --header"),
        ("NA,NA\n4,5\n", "line 1 holds no number: are these names? --header"),
        ("a,2,3\n4,5,6\n", "line 1 holds numbers and a: are these names? --header"),
        ("a,b\n1,2\n3,4,5\n", "line 3: has 3 fields, expected 2"),
        ("a,b\n1,2\n3\n", "line 3: has 1 field, expected 2"),
        ("1,2\n3\n", "expected"),
        ("a,b\n1,2\n3, x\n", "line 3, column 4: column 2 (b) is 'x', expected a number"),
        ('a,b\n"1\n",2\n3,"u\nv"\n', r"line 4, column 3: column 2 (b) is 'u\nv'"),
        ("a,b\n1,\n3,4\n", "line 2, column 3: column 2 (b) is empty, expected a number; --missing"),
        ("a,b\n1,NA\n3,4\n", "line 2, column 3: column 2 (b) is NA"),
        ("a,b\n" + 400 * "1,2\n" + "1_0,2\n", "line 402, column 1: column 1 (a) is '1_0'"),
        (
            "a;b\n" + 400 * "1;2\n" + "1;2,5\n",
            "line 402, column 3: column 2 (b) is '2,5', expected",
        ),
        ("ticker,a\nAAPL,1\nMSFT,2\n", "line 2, column 1: column 1 (ticker) holds 'AAPL'"),
        ("a,b\n", "holds names and no line of numbers"),
        ("a\n", "holds"),
        ("", "the first line is empty"),
        ("\n1,2\n", "the first line is empty"),
        ("a,b\nx,y\n", "line 2, column 1: column 1 (a) holds 'x', expected numbers"),
        ("a,b\n2020-01-01,10:00\n", "holds no column of numbers"),
    ],
)
def test_refused(text: str, words: str) -> None:
    with pytest.raises(UserError, match=r"^x\.csv: ") as error:
        read(text)
    assert words in str(error.value)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_late_value_behind_the_last_delimiter(delimiter: str) -> None:
    lines = [["a", "b", ""], *[["1", "2", ""]] * 300]
    text = "".join(delimiter.join(line) + "\r\n" for line in lines)
    assert read(text).numbers.shape == (300, 2)
    late = text + delimiter.join(["3", "4", "7"]) + "\n"
    message = r"line 302, column 5: column 3 is '7', but empty in the lines before"
    with pytest.raises(UserError, match=message):
        read(late)
    assert read(late, columns="1,2").numbers[-1].tolist() == [3, 4]


def test_options_decide() -> None:
    assert read("a;b\n1,234;5,678\n", decimal=",").numbers.tolist() == [[1.234, 5.678]]
    assert read("0,1\n0.5,2\n", header=True).numbers.tolist() == [[0.5, 2.0]]
    assert read("0,1\n0.5,2\n", header=False).numbers.tolist() == [[0.0, 1.0], [0.5, 2.0]]
    assert read("value\n1,5\n2,5\n", delimiter=";").numbers.tolist() == [[1.5], [2.5]]
    assert read("1,5\n2,5\n", decimal=",").numbers.tolist() == [[1.5], [2.5]]
    assert read("1:2\n3:4\n", delimiter=":").numbers.tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_columns_by_names_and_numbers() -> None:
    text = 'date,a,"b, c",a\n2020-01-01,1,2,3\n2020-01-02,4,5,6\n'
    assert read(text, '"b, c",2').numbers.tolist() == [[2.0, 1.0], [5.0, 4.0]]
    for columns, words in (
        ("a", "several columns"),
        ("d", "no column 'd'"),
        ("9", "no column '9'"),
    ):
        with pytest.raises(UserError, match=words):
            read(text, columns)
    with pytest.raises(UserError, match=r"line 2, column 1: column 1 .date. is '2020-01-01'"):
        read(text, "date")


def test_the_input_size_is_evidence() -> None:
    """A column that counts the lines is an input of a model that has as many."""
    text = "n,a\n1,7\n2,9\n"
    assert read(text, size=2).numbers.tolist() == [[1.0, 7.0], [2.0, 9.0]]
    table = read(text, size=1)
    assert table.numbers.tolist() == [[7.0], [9.0]]
    assert table.notes == ["column 1 (n) counts the lines, left out"]
    assert read(text).notes == ["column 1 (n) counts the lines, and is read as the others"]
    assert read("t,a\nAAPL,1\nMSFT,2\n", size=1).notes == ["column 1 (t) holds text, left out"]
    with pytest.raises(UserError, match=r"has 2 columns .*1 \(n\), 2 \(a\).* size is 3"):
        read(text, size=3)


def test_a_decimal_comma_is_no_column_that_counts() -> None:
    text = "1,5\n2,5\n3,75\n"
    with pytest.raises(UserError, match=r"as in line 1; use --decimal , or --decimal \."):
        read(text, size=1)
    assert read(text, size=1, decimal=",").numbers.tolist() == [[1.5], [2.5], [3.75]]
    assert read(text, size=1, decimal=".").numbers.tolist() == [[5.0], [5.0], [75.0]]
    assert read(text, size=1, delimiter=",").numbers.tolist() == [[5.0], [5.0], [75.0]]
    assert read("1,0.5\n2,1.5\n", size=1).numbers.tolist() == [[0.5], [1.5]]


@pytest.mark.parametrize("missing", [None, "zero"])
def test_a_delimiter_at_the_end_of_lines_under_names_is_no_field(missing: str | None) -> None:
    table = read("a,b\n1,2.5,\n3,4,\n", missing=missing)
    assert table.numbers.tolist() == TWO
    assert table.notes == []


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("zero", [[1, 2], [0, 3], [5, 0]]),
        ("mean", [[1, 2], [3, 3], [5, 2.5]]),
        ("forward", [[1, 2], [1, 3], [5, 3]]),
        ("drop", [[1, 2]]),
        ("nan", [[1, 2], [math.nan, 3], [5, math.nan]]),
    ],
)
@pytest.mark.parametrize("gap", ["", "NA", "n/a", "NaN", "null", "-", "?", "#N/A"])
def test_missing(how: str, expected: list[list[float]], gap: str) -> None:
    table = read(f"a;b\n1;2\n{gap};3\n5;{gap}\n", missing=how)
    np.testing.assert_array_equal(table.numbers, expected)
    assert table.notes[0].startswith("2 fields without a number, the first at line 3, column 1: ")


def test_gaps_that_can_not_be_filled() -> None:
    for how, words in (("forward", "line 2, column 3: .* begins without"), ("mean", "no mean")):
        with pytest.raises(UserError, match=words):
            read("a;b\n1;\n2;\n", missing=how)
    with pytest.raises(UserError, match="none is left"):
        read("a;b\n1;\n2;\n", missing="drop")
