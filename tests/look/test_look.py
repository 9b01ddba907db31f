"""The page of a trace: its numbers are the trace's, in a browser, too; and the command."""

from __future__ import annotations

import base64
import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, BiLSTM, Trace, cli, save
from fastlstm.look import page
from fastlstm.training import Embedding, Network, Scaling
from support.browser import opened
from support.command_line import error_line

T, I, H = 40, 3, 6
X = np.random.default_rng(0).normal(size=(T, I)).astype(np.float32)


def about(text: str) -> dict[str, Any]:
    found = re.search(r'id="about">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    result: dict[str, Any] = json.loads(found[1])
    return result


def levels_of(text: str, one: dict[str, Any]) -> Any:
    """The bytes of a block."""
    found = re.search(rf'id="block{one["block"]}">(.*?)</script>', text)
    assert found is not None
    return np.frombuffer(zlib.decompress(base64.b64decode(found[1])), np.uint8)


def values(text: str, one: dict[str, Any]) -> Any:
    """The numbers of a block, as the page makes them of bytes."""
    levels = levels_of(text, one).astype(float)
    return np.where(
        levels > 0, one["low"] + (levels - 1) * (one["high"] - one["low"]) / 254, np.nan
    )


def check(text: str, trace: Trace, x: Any = None) -> None:
    """All arrays are the trace's, to half a level."""
    told = about(text)
    assert [row["name"] for row in told["rows"]] == [row.name for row in trace.rows]
    assert told["units"] == trace.units.tolist()
    for r, row in enumerate(told["rows"]):
        for name in told["names"]:
            one, expected = row["arrays"][name], np.squeeze(getattr(trace, name)[r])
            level = (one["high"] - one["low"]) / 254
            got = values(text, one).reshape(expected.shape)
            np.testing.assert_allclose(got, expected, atol=0.501 * level)
        np.testing.assert_allclose(row["remembers"], trace.time_constants()[r], rtol=1e-3)
        np.testing.assert_allclose(row["low"]["i"], trace.saturation().low["i"][r], rtol=1e-3)
    if x is not None:
        for k, one in enumerate(told["input"]["features"]):
            level = (one["high"] - one["low"]) / 254
            np.testing.assert_allclose(values(text, one), x[:, k], atol=0.501 * level)


@pytest.mark.parametrize("directions", [1, 2])
def test_numbers_are_those_of_the_trace(directions: int) -> None:
    layer = (LSTM, BiLSTM)[directions - 1](I, H, 2, seed=1)
    trace = layer.trace(X, units=[4, 1])
    text = page(trace, X)
    check(text, trace, X)
    assert not re.search(r"""(src|href|url|import)\s*[=(]\s*["']?(https?:)?//""", text)


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e30])
def test_input_far_from_0_has_all_levels(scale: float) -> None:
    """Pressures of about 1000 hPa, say, of which 0 would leave two levels."""
    x = scale * (1000 + np.column_stack([X[:, 0], np.zeros(T)]))
    told = about(text := page(LSTM(I, H, seed=1).trace(X), x))["input"]["features"]
    assert (told[0]["low"], told[0]["high"]) == (x[:, 0].min(), x[:, 0].max())
    np.testing.assert_allclose(values(text, told[0]), x[:, 0], atol=0.501 * np.ptp(x[:, 0]) / 254)
    np.testing.assert_allclose(values(text, told[1]), x[:, 1], rtol=0.01)


@pytest.mark.parametrize("largest", [5e-324, 1.7e308])
def test_floats_of_any_size_have_their_places(largest: float) -> None:
    """The range of the largest is no float, nor is half of the least."""
    x = largest * np.column_stack([np.sign(X[:, 0]), np.ones(T), np.arange(T) % 2])
    told = about(text := page(LSTM(I, H, seed=1).trace(X), x))["input"]["features"]
    for k in (0, 2):
        assert (told[k]["low"], told[k]["high"]) == (x[:, k].min(), x[:, k].max())
        expected = np.where(x[:, k] == x[:, k].max(), 255, 1)
        np.testing.assert_array_equal(levels_of(text, told[k]), expected)
    middle = levels_of(text, told[1])
    assert middle.min() == middle.max() > 1


def test_what_is_not_known_is_no_memory_without_end() -> None:
    x = X.copy()
    x[3, 0] = np.nan
    for trace in (LSTM(I, H, seed=1).trace(x), LSTM(I, H, seed=1).trace(X[:, None], lengths=[0])):
        assert about(page(trace))["rows"][0]["remembers"] == [None] * H
    layer = LSTM(1, 2, gate_activation="relu", bias=True, seed=0)
    vector = np.zeros_like(layer.parameters)
    layer.named_views(vector)["bias_ih_l0"][2:4] = [1, 0.5]  # of f
    layer.load_parameters(vector)
    remembers = about(page(layer.trace(X[:, :1])))["rows"][0]["remembers"]
    assert remembers == ["Infinity", pytest.approx(-1 / np.log(0.5), rel=1e-3)]


def test_padding_is_no_input() -> None:
    trace = LSTM(I, H, seed=1).trace(X[:, None], lengths=[T - 5])
    told = about(text := page(trace, 100 * X))["input"]["features"][0]
    assert told["high"] == pytest.approx(100 * X[:-5, 0].max())
    assert (levels_of(text, told)[-5:] == 0).all()


def test_projected_h_is_left_out() -> None:
    trace = LSTM(I, H, proj_size=2, seed=1).trace(X)
    assert about(page(trace))["names"] == ["i", "f", "g", "o", "c"]


def test_what_stands_in_text_stays_text() -> None:
    bad = "</script><script>alert(1)</script>"
    text = page(LSTM(I, H, seed=1).trace(X), tokens=[bad] * T, title="<b>&")
    assert bad not in text
    assert "<title>&lt;b&gt;&amp;</title>" in text
    assert about(text)["tokens"] == [bad] * T


def test_names_that_are_no_text_can_be_written() -> None:
    text = page(LSTM(I, H, seed=1).trace(X), tokens=["\udcff"] * T, title="m\udcff.npz")
    assert "<title>m?.npz</title>" in text.encode().decode()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda trace: page(X), TypeError, "trace: got ndarray, expected a Trace"),
        (lambda trace: page(trace, X[:3]), ValueError, "x: got 3, expected 40"),
        (lambda trace: page(trace, tokens=["a"]), ValueError, "tokens: got 1, expected 40"),
        (lambda trace: page(trace, np.full(T, "a")), ValueError, "x: got .* of <U1, expected"),
        (lambda trace: page(trace, steps=[0.5] * T), ValueError, "steps: got .* of float64"),
        (lambda trace: page(trace, steps=np.arange(T).astype("M8[D]")), ValueError, "steps: got"),
    ],
)
def test_mistakes(call: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        call(LSTM(I, H, seed=1).trace(X))


def test_two_sequences_are_refused() -> None:
    with pytest.raises(ValueError, match="trace: has 2 sequences, expected one"):
        page(LSTM(I, H, seed=1).trace(np.zeros((T, 2, I))))


# the command


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save(LSTM(I, H, 2, seed=1), "m.npz")
    np.save("x.npy", np.stack([X, X + 1], axis=1))
    return tmp_path


def look(arguments: str) -> int:
    return cli.main(["look", *arguments.split()])


def test_command(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--sequence 1 --layers 1 --units 0:4 --steps 10:30:2"
    assert look(f"m.npz x.npy -o r.html {options}") == 0
    said = capsys.readouterr().out
    assert re.fullmatch(r"r.html: 10 steps, 4 units of l1; 0\.\d+ MB\n", said)
    text = Path("r.html").read_text(encoding="utf-8")
    trace = LSTM(I, H, 2, seed=1).trace(X + 1, layers=1, units=range(4), steps=range(10, 30, 2))
    check(text, trace, X[10:30:2] + 1)
    assert about(text)["steps"] == [*range(10, 30, 2)]


def test_padding_is_left_out(here: Path) -> None:
    np.save("mask.npy", np.arange(T)[:, np.newaxis] % [1, 2] == 0)
    assert look("m.npz x.npy -o r.html --sequence 1 --mask mask.npy") == 0
    text = Path("r.html").read_text(encoding="utf-8")
    check(text, LSTM(I, H, 2, seed=1).trace(X[::2] + 1), X[::2] + 1)
    assert about(text)["steps"] == [*range(0, T, 2)]


@pytest.mark.parametrize("batch_first", [False, True])
def test_networks_see_what_they_would(here: Path, batch_first: bool) -> None:
    lstm = LSTM(I, H, batch_first=batch_first, seed=1)
    scaling = Scaling(np.ones(I), np.full(I, 2.0), np.zeros(1), 1.0)
    Network(lstm, 1, scaling=scaling, seed=2).save("n.npz")
    np.save("x.npy", X)
    assert look("n.npz x.npy -o r.html") == 0
    check(Path("r.html").read_text(encoding="utf-8"), lstm.trace((X - 1) / 2), X)


def test_text_of_an_embedding(here: Path) -> None:
    network = Network(LSTM(I, H, seed=1), 2, embedding=Embedding(128, I), seed=2)
    network.save("n.npz")
    written = "it is good\nor not"
    tokens = np.frombuffer(written.encode(), np.uint8).astype(np.int64)
    np.save("x.npy", tokens)
    Path("t.txt").write_text(written, encoding="utf-8")
    assert look("n.npz x.npy -o r.html --text t.txt") == 0
    text = Path("r.html").read_text(encoding="utf-8")
    assert "".join(about(text)["tokens"]) == written
    assert about(text)["input"] is None
    table = network.state_dict()["embedding.weight"]
    check(text, network.lstm.trace(table[tokens]))


def test_steps_that_an_embedding_masks_are_left_out(here: Path) -> None:
    embedding = Embedding(9, I, padding_idx=0, masked=True)
    network = Network(LSTM(I, H, seed=1), 2, embedding=embedding, seed=2)
    network.save("n.npz")
    tokens = np.array([[3, 0, 5, 8, 0, 1], [1, 2, 3, 4, 5, 6]]).T
    np.save("x.npy", tokens)
    assert look("n.npz x.npy -o r.html") == 0
    text = Path("r.html").read_text(encoding="utf-8")
    assert about(text)["steps"] == [0, 2, 3, 5]
    assert about(text)["tokens"] == ["3", "5", "8", "1"]
    check(text, network.lstm.trace(network.state_dict()["embedding.weight"][[3, 5, 8, 1]]))


def test_lines_of_a_text_end_at_newlines_alone(here: Path) -> None:
    tokens = ["a\x0cb", "\u2028", "", "\x85", "<b>"]
    Path("t.txt").write_bytes("\r\n".join([*tokens, ""]).encode())
    np.save("x.npy", X[:5])
    assert look("m.npz x.npy -o r.html --text t.txt") == 0
    assert about(Path("r.html").read_text(encoding="utf-8"))["tokens"] == tokens


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("m.npz x.npy -o r.png", "r.png: unknown suffix, REPORT can be .html"),
        ("m.npz x.npy -o r.html --sequence 2", "--sequence: got 2, but x.npy has 2"),
        ("m.npz x.npy -o r.html --layers 2", "--layers: got 2 to 2, expected different numbers"),
        ("m.npz x.npy -o r.html --steps 90:", "x.npy: no step, layer or unit is left to show"),
        ("m.npz x.npy -o r.html --units a", "argument --units: got 'a', expected numbers as 0,2"),
        ("m.npz x.npy -o r.html --text t.txt", "--text: t.txt has 2 lines and 4 characters, expe"),
        ("m.npz x.npy -o r.html --text none.txt", "none.txt: no such file"),
        ("m.npz none.npy -o r.html", "none.npy: no such file"),
    ],
)
def test_mistakes_of_the_command(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: str, words: str
) -> None:
    Path("t.txt").write_text("a\nb\n", encoding="utf-8")
    try:
        code = look(arguments)
    except SystemExit as ended:  # of the parser
        code = int(ended.code or 0)
    assert code == 2
    assert words in error_line(capsys)
    assert not Path("r.html").exists()


# in a browser


@pytest.mark.slow
def test_a_browser_shows_the_values_of_the_chosen_unit(here: Path) -> None:
    assert look("m.npz x.npy -o r.html --units 1:6") == 0
    trace = LSTM(I, H, 2, seed=1).trace(X, units=range(1, 6))
    rows = about(Path("r.html").read_text(encoding="utf-8"))["rows"]
    remembers = trace.time_constants()[1]
    with opened(here / "r.html", "row=l1&unit=4&step=17&array=f", here) as shown:
        shown.wait_for("document.documentElement?.dataset.drawn > 0")
        check_readout(shown.text("readout"), trace, rows[1], 17, 3)
        caption = f"unit 4 of l1: remembers {remembers[3]:.3g} steps"
        assert shown.text("unit-caption") == caption
        first = re.search(r"moves(\d)", shown.text("memory"))
        assert first is not None
        assert int(first[1]) == trace.units[remembers.argmax()]
        shown.evaluate("document.getElementById('heat').focus()")
        for key in ("ArrowRight", "ArrowRight", "ArrowUp"):
            shown.press(key)
        shown.wait_for(
            "document.getElementById('readout').textContent.startsWith('step 19, unit 5')"
        )
        check_readout(shown.text("readout"), trace, rows[1], 19, 4)
        shown.touch("heat", 10.5 / T, 0.5 / 5)  # the highest unit is at the top
        shown.wait_for(
            "document.getElementById('readout').textContent.startsWith('step 10, unit 5')"
        )
        check_readout(shown.text("readout"), trace, rows[1], 10, 4)
        assert shown.complaints == []


@pytest.mark.slow
def test_a_browser_shows_what_is_without_end_or_not_there(tmp_path: Path) -> None:
    layer = LSTM(1, 3, gate_activation="relu", bias=True, seed=0)
    vector = np.zeros_like(layer.parameters)
    layer.named_views(vector)["bias_ih_l0"][3:6] = [0.5, 1, 0]  # of f
    layer.load_parameters(vector)
    x = 1.7e308 * np.sign(X[:, :1].astype(float))
    tokens = ["\N{PILE OF POO}", "<b>", "</script>", "\N{ARABIC LETTER AIN}"] * 300
    trace = layer.trace(np.zeros((1200, 1)))
    trace.f[..., 2] = np.nan
    text = page(trace, np.tile(x, (30, 1)), tokens=tokens)
    (tmp_path / "r.html").write_text(text, encoding="utf-8")
    with opened(tmp_path / "r.html", "unit=1&step=1", tmp_path) as shown:
        shown.wait_for("document.documentElement?.dataset.drawn > 0")
        assert shown.text("unit-caption") == "unit 1 of l0: never forgets"
        readout = shown.text("readout")
        assert readout.startswith('step 1 "<b>", unit 1: i 0.0')
        assert float(readout.rpartition("x0 ")[2]) == x[1]
        units, memory = (
            shown.evaluate(f"[...document.querySelectorAll('#memory td:nth-child({k})')]"
                           ".map((cell) => cell.textContent)") for k in (1, 2)
        )  # fmt: skip
        assert units == ["1", "0", "2"]
        assert memory == ["\N{INFINITY}", "1.44", "\N{EN DASH}"]
        written = [*" ".join(tokens[:400]), " ", " ", "\N{HORIZONTAL ELLIPSIS}"]
        assert [*shown.text("text")] == written
        shown.evaluate("choose({ step: 1199, unit: 2 })")
        shown.wait_for("document.getElementById('readout').textContent.startsWith('step 1199')")
        assert shown.text("unit-caption") == "unit 2 of l0"
        assert shown.text("text").startswith("\N{HORIZONTAL ELLIPSIS} \N{PILE OF POO} <b>")
        now = shown.evaluate("document.querySelector('.text .now').dataset.step")
        assert now == "1199"
        assert shown.complaints == []


def check_readout(text: str, trace: Trace, row: dict[str, Any], step: int, place: int) -> None:
    """What is read out are the trace's values, to a level and the digits that are written."""
    assert text.startswith(f"step {step}, unit {trace.units[place]}: i ")
    told = {name: float(value) for name, value in re.findall(r"(\b\w+) (-?\d\.\d+)", text)}
    for name in "ifgoch":
        one = row["arrays"][name]
        level = (one["high"] - one["low"]) / 254
        assert told[name] == pytest.approx(getattr(trace, name)[1, step, place], abs=0.6 * level)
    assert told["x0"] == pytest.approx(X[step, 0], abs=0.02)
