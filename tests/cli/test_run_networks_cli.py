"""The command ``run`` with networks: what it writes is what `Network` answers."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, BiLSTM, cli
from fastlstm.training import Embedding, HeadSpec, Network, Scaling
from fastlstm.weights import npz
from support.arrays import assert_same_bits
from support.command_line import refused
from support.optional import require

pytestmark = [pytest.mark.default_isa, pytest.mark.wheel]

T, B, I = 9, 5, 3
LENGTHS = np.array([9, 4, 1, 6, 9])
PRESENT = np.arange(T)[:, np.newaxis] < LENGTHS
SCALING = Scaling(np.array([20.0, 0, 1]), np.array([5.0, 1, 2]), np.array([100.0, -3]), 7.0)
NO_Y = Scaling(np.array([20.0, 0, 1]), np.array([5.0, 1, 2]), np.zeros(3), 1.0)
WORDS = ["cough", "silence, long", "speech"]


def network(kind: str, batch_first: bool = False) -> Network:
    """A network of each kind, with first weights that give each answer."""
    layer = LSTM(I, 6, 2, seed=1, batch_first=batch_first)
    both = BiLSTM(I, 6, seed=1, batch_first=batch_first)
    heads = {
        "tag": HeadSpec(loss="cross_entropy", classes=["noun", "verb"]),
        "level": HeadSpec(1, loss="mae"),
    }
    options: dict[str, tuple[Any, dict[str, Any]]] = {
        "plain": (layer, {"outputs": 2}),
        "scaled": (layer, {"targets": ["a", "b"], "scaling": SCALING}),
        "classes": (layer, {"loss": "cross_entropy", "classes": WORDS, "scaling": NO_Y}),
        "numbers": (both, {"loss": "cross_entropy", "outputs": 3}),
        "labels": (layer, {"loss": "binary_cross_entropy", "classes": WORDS}),
        "quantiles": (layer, {"loss": "pinball", "quantiles": [0.1, 0.5, 0.9], "outputs": 2,
                              "scaling": SCALING}),
        "pooled": (both, {"loss": "cross_entropy", "classes": WORDS, "each_step": False,
                          "pooling": "mean"}),
        "last": (both, {"outputs": 1, "each_step": False, "loss": "mae"}),
        "heads": (layer, {"heads": heads}),
        "tokens": (layer, {"outputs": 1, "embedding": Embedding(11, I)}),
    }  # fmt: skip
    lstm, given = options[kind]
    made = Network(lstm, **given, seed=2)
    drawn = np.random.default_rng(4).normal(size=made.parameters.size)
    made.load_parameters(drawn)  # so that answers differ
    return made


KINDS = ["plain", "scaled", "classes", "numbers", "labels", "quantiles", "pooled", "last", "heads",
         "tokens"]  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own with inputs in both layouts."""
    monkeypatch.chdir(tmp_path)
    np.save("lengths.npy", LENGTHS)
    return tmp_path


def inputs(made: Network) -> np.ndarray:
    """Inputs (T, B, I), or integers (T, B)."""
    rng = np.random.default_rng(3)
    if made.embedding is not None:
        return rng.integers(0, 11, (T, B))
    return (SCALING.x_mean + SCALING.x_scale * rng.normal(size=(T, B, I))).astype(np.float32)


def run(*arguments: str) -> int:
    return cli.main(["run", "m.npz", *arguments, "-q", "--force"])


def rows(path: str = "y.csv") -> tuple[list[str], list[list[str]]]:
    """The names and the lines of a table."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        names, *lines = csv.reader(file)
    return names, lines


def by_head(made: Network, value: Any) -> dict[str, Any]:
    return {"y": value} if "" in made.heads else value


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", ["", "--batch-size 2 --chunk 4", "--lengths lengths.npy"])
def test_arrays_are_what_the_network_answers(here: Path, kind: str, options: str) -> None:
    for batch_first in (False, True):
        made = network(kind, batch_first)
        made.save("m.npz", overwrite=True)
        x = inputs(made)
        x = np.ascontiguousarray(x.swapaxes(0, 1)) if batch_first else x
        np.save("x.npy", x)
        assert run("x.npy", "-o", "y.npz", *options.split()) == 0
        given = {"lengths": LENGTHS} if "lengths" in options else {}
        present = PRESENT.T if batch_first else PRESENT
        likely = [name for name, spec in made.heads.items() if spec.is_decision]
        chances = made.predict_proba(x, **given) if likely else {}
        chances = {"": chances} if "" in likely else chances
        with np.load("y.npz") as got:
            for name, expected in by_head(made, made.predict(x, **given)).items():
                if given and made.each_step and expected.dtype.kind == "f":
                    expected[~present] = 0
                assert_same_bits(got[name], expected)
            for head in likely:
                name = f"{head}.probabilities" if head else "probabilities"
                if given and made.each_step:
                    chances[head][~present] = 0
                assert_same_bits(got[name], chances[head])
                if (names := made.heads[head].classes) is not None:
                    assert got[f"{head}.classes" if head else "classes"].tolist() == list(names)
        if len(made.heads) == 1:
            assert run("x.npy", "-o", "y.npy", *options.split()) == 0
            with np.load("y.npz") as got:
                assert_same_bits(np.load("y.npy"), got["y"])


@pytest.mark.parametrize("options", ["", "--chunk 2", "--lengths lengths.npy"])
def test_steps_that_an_embedding_skips_have_no_answers(here: Path, options: str) -> None:
    table = Embedding(11, I, padding_idx=0, masked=True)
    made = Network(LSTM(I, 4, seed=0), loss="cross_entropy", outputs=3, embedding=table, seed=0)
    made.save("m.npz")
    x = inputs(made)
    x[2:4], x[5, 0] = 0, 0
    np.save("x.npy", x)
    assert run("x.npy", "-o", "y.npz", *options.split()) == 0
    given = {"lengths": LENGTHS} if "lengths" in options else {}
    with np.load("y.npz") as got:
        assert_same_bits(got["y"], made.predict(x, **given))
        assert (got["y"][2:4] == -1).all()
        assert_same_bits(got["probabilities"], np.nan_to_num(made.predict_proba(x, **given)))


HEADERS = {
    "scaled": ["a", "b"],
    "classes": ["class", "P(cough)", "P(silence, long)", "P(speech)"],
    "numbers": ["class", "P(0)", "P(1)", "P(2)"],
    "labels": [*WORDS, "P(cough)", "P(silence, long)", "P(speech)"],
    "quantiles": ["1.q0.1", "1.q0.5", "1.q0.9", "2.q0.1", "2.q0.5", "2.q0.9"],
    "heads": ["level", "tag", "tag.P(noun)", "tag.P(verb)"],
}


@pytest.mark.parametrize("kind", HEADERS)
def test_tables_have_names(here: Path, kind: str) -> None:
    made = network(kind)
    made.save("m.npz")
    x = inputs(made)[:, 0].astype(np.float64)
    np.savetxt("x.csv", x, delimiter=",")
    assert run("x.csv", "-o", "y.csv") == 0
    names, lines = rows()
    assert names == HEADERS[kind]
    assert len(lines) == T
    answers = made.predict(x)
    if kind == "heads":
        assert [line[1] for line in lines] == answers["tag"].tolist()
        assert np.allclose([float(line[0]) for line in lines], answers["level"][:, 0])
    elif kind in ("classes", "numbers"):
        assert [line[0] for line in lines] == [str(each) for each in answers.tolist()]
        likely = np.array([line[1:] for line in lines], np.float32)
        assert_same_bits(likely, made.predict_proba(x).astype(np.float32))
    elif kind == "labels":
        assert [line[:3] for line in lines] == [[str(int(e)) for e in row] for row in answers]
    else:
        assert_same_bits(np.array(lines, np.float32), answers.reshape(T, -1))


def test_an_answer_for_each_sequence_is_a_line(here: Path) -> None:
    made = network("pooled")
    made.save("m.npz")
    np.save("x.npy", x := inputs(made))
    assert run("x.npy", "-o", "y.csv") == 0
    assert [line[0] for line in rows()[1]] == made.predict(x).tolist()


def test_logits(here: Path) -> None:
    made = network("classes")
    made.save("m.npz")
    np.save("x.npy", x := inputs(made))
    assert run("x.npy", "-o", "y.npy", "--logits") == 0
    assert_same_bits(np.load("y.npy"), made(SCALING.apply_x(x, np.dtype(np.float32))))


def test_features_are_found_by_name(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = network("scaled")
    made.features = ("left", "right", "top")
    made.save("m.npz")
    x = np.round(inputs(made)[:, 0].astype(np.float64), 3)

    def write(path: str, names: list[str], *columns: Any) -> None:
        lines = [",".join(names), *(",".join(map(str, row)) for row in zip(*columns, strict=True))]
        Path(path).write_text("\n".join(lines) + "\n")

    left, right, top = x.T.tolist()
    write("x.csv", ["top", "note", "left", "more", "right"], top, ["n"] * T, left, top, right)
    write("less.csv", ["top", "left", "more"], top, left, right)
    write("text.csv", ["top", "left", "right"], top, left, [*right[:4], "broken", *right[5:]])
    np.savetxt("plain.csv", x, delimiter=",", fmt="%.3f")
    for path in ("x.csv", "plain.csv", "x.csv:left,right,top", "x.csv:left,right,more"):
        assert run(path, "-o", "y.npy") == 0
        assert_same_bits(np.load("y.npy"), made.predict(x))
    assert cli.main(["run", "m.npz", "x.csv", "-o", "y.npy", "--force"]) == 0
    assert "column 2 (note), column 4 (more) left out" in capsys.readouterr().err
    before = Path("y.npy").read_bytes()
    for path, words in (
        ("less.csv", "less.csv: no column 'right', which the model reads; there are top, left, mo"),
        ("text.csv", "text.csv: line 6, column "),
        ("x.csv:right,left,top", "expected left, right, top: the model reads them in this order"),
    ):
        assert words in refused(capsys, "m.npz", path, "-o", "y.npy", "--force")
        assert Path("y.npy").read_bytes() == before


# how good it is


def figures(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capsys.readouterr()
    assert run(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)["evaluation"]


def truth(made: Network, batch_first: bool = False) -> Any:
    """Right answers, of which some are the network's own, by heads."""
    rng = np.random.default_rng(7)
    ys = {}
    for head, spec in made.heads.items():
        shape: tuple[int, ...] = (T, B) if made.each_step else (B,)
        if spec.kind == "class":
            ys[head] = rng.integers(0, spec.outputs, shape)
            if spec.classes is not None:
                ys[head] = np.array(spec.classes)[ys[head]]
        elif spec.kind == "labels":
            ys[head] = rng.integers(0, 2, (*shape, spec.outputs)).astype(bool)
        else:
            ys[head] = rng.normal(size=(*shape, spec.outputs))
        if batch_first and made.each_step:
            ys[head] = ys[head].swapaxes(0, 1)
    return ys.get("", ys)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("options", ["", "--lengths lengths.npy --batch-size 2"])
def test_figures_are_those_of_evaluate(
    here: Path, capsys: pytest.CaptureFixture[str], kind: str, batch_first: bool, options: str
) -> None:
    made = network(kind, batch_first)
    made.save("m.npz")
    x, y = inputs(made), truth(made, batch_first)
    np.save("x.npy", x.swapaxes(0, 1) if batch_first else x)
    if isinstance(y, dict):
        np.savez("y.npz", **y)
    else:
        np.savez("y.npz", y=y)
    given: dict[str, Any] = {"lengths": LENGTHS} if options else {}
    regression = made.each_step and kind in ("plain", "scaled", "quantiles", "tokens")
    if regression:
        given["season"], options = 2, f"{options} --season 2"
    x = np.load("x.npy")
    expected = made.evaluate(x, y, **given)
    got = figures(capsys, "x.npy", "--targets", "y.npz", *options.split())
    if isinstance(expected, dict):
        assert got == {name: json.loads(json.dumps(e.as_dict())) for name, e in expected.items()}
    else:
        assert got == json.loads(json.dumps(expected.as_dict()))
        assert run("x.npy", "--targets", "y.npz", "-o", "z.npy", *options.split()) == 0
        assert capsys.readouterr().out.endswith(f"{expected}\n")
        assert ("seasonal persistence" in str(expected)) == regression


def test_weights(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = network("numbers")  # of a BiLSTM, that would take an end of zeros for padding
    made.save("m.npz")
    x, y = inputs(made), truth(made)
    x[-2:, 0], y[-2:, 0] = 0, -100
    w = np.ones((T, B))
    w[-2:, 0] = 0
    for name, array in {"x": x, "y": y, "w": w}.items():
        np.save(f"{name}.npy", array)
    got = figures(capsys, "x.npy", "--targets", "y.npy", "--weights", "w.npy")
    assert got == json.loads(json.dumps(made.evaluate(x, y, w, lengths=T).as_dict()))
    assert got["weight"] == T * B - 2


def test_answers_in_columns_of_the_same_table(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = network("classes")
    made.features = ("u", "v", "w")
    made.save("m.npz")
    x, y = inputs(made)[:, 0].astype(np.float64), truth(made)[:, 0].tolist()
    lines = ["u,v,w,heard,class"]
    lines += [
        f'{u},{v},{w},"{word}",{i}' for (u, v, w), word, i in zip(x, y, range(T), strict=True)
    ]
    Path("d.csv").write_text("\n".join(lines) + "\n")
    got = figures(capsys, "d.csv", "--targets", "d.csv:heard")
    assert got == json.loads(json.dumps(made.evaluate(x[:, None], np.array(y)[:, None]).as_dict()))
    for targets, words in (
        ("d.csv", "d.csv: got class '0', expected one of ['cough', 'silence, long', 'speech']"),
        ("d.csv:noise", "d.csv: no column 'noise', there are u, v, w, heard, class"),
        ("d.csv:u,v", "d.csv: has 2 columns, expected 1 of answers, called class"),
    ):
        text = refused(capsys, "m.npz", "d.csv", "--targets", targets, "-o", "z.npy")
        assert words in text
        assert not Path("z.npy").exists()


def test_classes_by_number_in_a_table(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = network("classes")
    made.save("m.npz")
    x = inputs(made)[:, 0].astype(np.float64)
    np.savetxt("x.csv", x, delimiter=",", header="u,v,w", comments="")
    numbers = np.arange(T) % 3
    np.savetxt("y.csv", numbers, fmt="%d", header="class", comments="")
    got = figures(capsys, "x.csv", "--targets", "y.csv", "--header", "yes")
    expected = made.evaluate(x[:, None], numbers[:, None]).as_dict()
    assert got == json.loads(json.dumps(expected))


def test_classes_that_are_true_or_false(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Network(LSTM(I, 6, seed=1), loss="cross_entropy", classes=[True, False], seed=2)
    made.save("m.npz")
    x = inputs(made)[:, :1].astype(np.float64)
    np.savetxt("x.csv", x[:, 0], delimiter=",")
    assert run("x.csv", "-o", "y.csv") == 0
    assert Path("y.csv").read_text().splitlines()[0] == "class,P(True),P(False)"
    expected = json.loads(json.dumps(made.evaluate(x, made.predict(x)).as_dict()))
    assert expected["accuracy"] == 1
    assert figures(capsys, "x.csv", "--targets", "y.csv") == expected
    Path("bad.csv").write_text("class\n" + "maybe\n" * T)
    text = refused(capsys, "m.npz", "x.csv", "--targets", "bad.csv", "-o", "z.npy")
    assert "bad.csv: got class 'maybe', expected one of [True, False]" in text


@pytest.mark.parametrize("kind", ["scaled", "quantiles", "labels"])
def test_columns_of_answers_in_another_order(
    here: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    made = network(kind)
    made.save("m.npz")
    np.savetxt("x.csv", inputs(made)[:, 0], delimiter=",", header="u,v,w", comments="")
    y = truth(made)[:, 0].astype(float)
    names = {"scaled": ["a", "b"], "quantiles": ["1", "2"], "labels": ["p", "q", "r"]}[kind]
    if kind == "labels":
        made = Network(made.lstm, loss="binary_cross_entropy", classes=names, seed=2)
        made.save("m.npz", overwrite=True)
    np.savetxt("y.csv", y, delimiter=",", header=",".join(names), comments="")
    right = figures(capsys, "x.csv", "--targets", "y.csv", "--header", "yes")
    chosen = figures(capsys, "x.csv", "--targets", f"y.csv:{','.join(names)}", "--header", "yes")
    assert chosen == right
    turned = f"y.csv:{','.join(names[::-1])}"
    command = ["m.npz", "x.csv", "--targets", turned, "--header", "yes", "-o", "z.npy"]
    assert "the model answers them in this order" in refused(capsys, *command)
    others = ",".join(name.upper() + "x" for name in names)
    np.savetxt("other.csv", y, delimiter=",", header=others, comments="")
    command[3] = "other.csv"
    if kind == "quantiles":  # without names
        assert figures(capsys, "x.csv", *command[2:6]) == right
        return
    assert "other.csv:NAME,NAME,... chooses columns of other names" in refused(capsys, *command)
    assert figures(capsys, "x.csv", "--targets", f"other.csv:{others}", "--header", "yes") == right


@pytest.mark.parametrize("kind", ["heads", "scaled", "quantiles", "labels"])
def test_answers_by_names_in_a_table(
    here: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    made = network(kind)
    made.save("m.npz")
    x, y = inputs(made)[:, 0].astype(np.float64), truth(made)
    np.savetxt("x.csv", x, delimiter=",", header="u,v,w", comments="")
    if kind == "heads":
        y = {head: part[:, :1] for head, part in y.items()}
        columns = {"level": y["level"][:, 0, 0], "no": range(T), "tag": y["tag"][:, 0]}
    else:
        y = y[:, :1]
        names = {"scaled": "ab", "quantiles": "12", "labels": WORDS}[kind]
        columns = {name: y[:, 0, k] for k, name in enumerate(names)}
        columns = dict(reversed(columns.items()))
    with Path("y.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow([repr(float(e)) if isinstance(e, float | np.bool_) else e for e in row])
    expected = made.evaluate(x[:, None], y)
    got = figures(capsys, "x.csv", "--targets", "y.csv", "--header", "yes")
    parts = expected if isinstance(expected, dict) else {"": expected}
    found = got if isinstance(expected, dict) else {"": got}
    for name, part in parts.items():
        assert found[name] == json.loads(json.dumps(part.as_dict()))


@pytest.mark.parametrize("kind", ["classes", "labels", "scaled", "quantiles", "last", "heads"])
def test_pictures(here: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    require("matplotlib")
    made = network(kind)
    made.save("m.npz")
    np.save("x.npy", inputs(made))
    y = truth(made)
    np.savez("y.npz", **(y if isinstance(y, dict) else {"y": y}))
    command = ["x.npy", "--targets", "y.npz", "--lengths", "lengths.npy", "--plot", "p.png"]
    assert run(*command) == 0
    assert Path("p.png").read_bytes().startswith(b"\x89PNG\r\n")
    capsys.readouterr()
    assert "p.xyz: unknown suffix" in refused(
        capsys, "m.npz", *command[:-1], "p.xyz", "-o", "z.npz"
    )
    assert not Path("z.npz").exists()


# mistakes


@pytest.mark.parametrize(
    ("kind", "arguments", "words"),
    [
        ("heads", "x.npy -o z.npy", "z.npy: holds one array, but there are level, tag, tag.pro"),
        ("heads", "x.npy --targets y.npy", "y.npy: expected an .npz file or a table, with answers"),
        ("classes", "x.npy -o y.csv", "a table cannot hold three dimensions, use .npy"),
        ("classes", "x.npy --json -o y.npy", "--json: needs --targets, the right answers"),
        ("classes", "x.npy --season 3 -o y.npy", "--season: needs --targets"),
        ("classes", "x.npy --plot p.png -o y.npy", "--plot: needs --targets"),
        ("classes", "x.npy --targets y.npy --no-head -o y.npy", "--targets: needs a network"),
        ("classes", "x.npy --logits --no-head -o y.npy", "--logits: needs a network"),
        ("classes", "x.npy --targets y.npy --season 3", "--season: got some, expected none but of"),
        ("classes", "x.npy --targets y.npy --missing drop", "--missing: got drop with --targets"),
        ("classes", "x.npy --targets bad.npy -o z.npy", "bad.npy: got class 'noise', expected one"),
        ("classes", "x.npy --targets x.npy", "x.npy: holds fractions, expected whole numbers for"),
        ("plain", "x.npy --targets nan.npy -o z.npy", "nan.npy: holds NaN or infinity in 1 place"),
        ("classes", "gaps.npy -o z.npy", "gaps.npy: NaN in it makes scores of classes NaN"),
        ("classes", "gaps.npy --targets y.npy", "gaps.npy: NaN in it makes scores of classes NaN"),
        ("plain", "x.npy --targets y.npy -o z.npy", "y.npy: got values of dtype <U13, expected re"),
        ("plain", "x.npy --targets short.npy -o z.npy", "short.npy: got shape (8, 5, 2), expected"),
        ("tokens", "x.npy -o z.npy", "x.npy: got float32, expected integers below 11, which m.npz"),
        ("tokens", "high.npy -o z.npy", "high.npy: got 11 to 11, expected integers from 0 to 10"),
        ("own", "x.npy --targets y.npy", "--targets: m.npz was trained on a loss of its own"),
    ],
)  # fmt: skip
def test_mistakes(
    here: Path, capsys: pytest.CaptureFixture[str], kind: str, arguments: str, words: str
) -> None:
    if kind == "own":

        def loss(z: Any, y: Any) -> Any:
            return z, y

        made = Network(LSTM(I, 6, seed=0), 1, loss=loss, seed=0)
    else:
        made = network(kind)
    made.save("m.npz")
    np.save("x.npy", inputs(network("plain")))
    np.save("y.npy", y := truth(network("classes")))
    gaps = inputs(network("plain"))
    gaps[3, 1, 0] = np.nan
    np.save("gaps.npy", gaps)
    np.save("bad.npy", np.where(np.arange(B) == 3, "noise", y))
    numbers = truth(network("plain"))
    np.save("short.npy", numbers[:8])
    numbers[3, 2, 1] = np.nan
    np.save("nan.npy", numbers)
    tokens = inputs(network("tokens"))
    tokens[2, 2] = 11
    np.save("high.npy", tokens)
    before = {each.name for each in here.iterdir()}
    assert words in refused(capsys, "m.npz", *arguments.split())
    assert {each.name for each in here.iterdir()} == before


def test_files_and_features_that_do_not_fit(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network("scaled").save("m.npz")
    np.save("x.npy", np.zeros((4, 2)))
    Path("x.csv").write_text("1.5,2\n2.5,3\n")
    later = {**npz.read_npz(Path("m.npz")), "fastlstm": np.array('{"version": 9}')}
    np.savez("later.npz", **later)  # type: ignore[arg-type]
    before = {each.name for each in here.iterdir()}
    for command, words in (
        ("m.npz x.npy", "x.npy: shape (4, 2) ends in 2, but the input size of m.npz is 3"),
        ("m.npz x.csv", "x.csv: has 2 columns of numbers (1, 2), but the input size is 3"),
        ("later.npz x.npy", "later.npz: written by a later fastlstm (version 9"),
    ):
        assert words in refused(capsys, *command.split(), "-o", "y.npy")
        assert {each.name for each in here.iterdir()} == before
