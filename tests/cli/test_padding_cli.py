"""Sequences of different lengths, missing answers, layouts and units on the command line."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM, BiLSTM, cli, weights
from fastlstm.training import Epoch
from fastlstm.weights.npz import read_npz
from support.arrays import assert_same_bits
from support.layers import layer_class
from support.optional import require

pytestmark = [pytest.mark.default_isa, pytest.mark.wheel]

Arrays = dict[str, np.ndarray]
T, B, I, K = 6, 10, 3, 2
LENGTHS = np.array([6, 4, 1, 6, 3, 2, 5, 6, 4, 3])
PRESENT = np.arange(T)[:, np.newaxis] < LENGTHS


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own with padded sequences; the same padded more, in front, and turned."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    x = 50 + rng.normal(scale=10, size=(T, B, I)).astype(np.float32)
    each = (x - 50).cumsum(axis=0)[..., :K]
    w = rng.integers(1, 3, (T, B)) / 2
    arrays = {"x": x, "each": each, "w": w, "classes": (each[..., 0] > 0).astype(np.int64)}
    rows = np.arange(B)
    lasts = {"last": each[LENGTHS - 1, rows], "labels": arrays["classes"][LENGTHS - 1, rows]}
    for name, array in arrays.items():
        save(f"{name}.npy", spread(array, PRESENT))
        save(f"more_{name}.npy", spread(array, np.pad(PRESENT, [(0, 7), (0, 0)])))
        front = np.pad(PRESENT[::-1], [(4, 0), (0, 0)])
        front[0, 0], front[4, 0] = True, False  # and a gap
        save(f"front_{name}.npy", spread(array, front))
        save("front_mask.npy", front)
        save(f"turned_{name}.npy", spread(array, PRESENT).swapaxes(0, 1))
    save("turned_mask.npy", PRESENT.T)
    save("lengths.npy", LENGTHS)
    for name, array in lasts.items():
        for prefix in ("", "more_", "front_", "turned_"):
            save(f"{prefix}{name}.npy", array)
    return tmp_path


def save(name: str, array: np.ndarray) -> None:
    np.save(name, np.ascontiguousarray(array))


def spread(array: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Put each sequence's first steps where the mask is True, and junk elsewhere."""
    out = np.full((len(mask), *array.shape[1:]), 77, array.dtype)
    for b, count in enumerate(mask.sum(axis=0)):
        out[mask[:, b], b] = array[:count, b]
    return out


def train(arguments: str) -> int:
    options = "--hidden 6 --batch-size 4 --epochs 3 --force --quiet -o m.npz"
    return cli.main(["train", *arguments.split(), *options.split()])


def model() -> Arrays:
    return {k: v for k, v in read_npz(Path("m.npz")).items() if k != "fastlstm"}


def run(arguments: str) -> np.ndarray:
    assert cli.main(["run", *arguments.split(), "-o", "z.npy", "--force", "--quiet"]) == 0
    return np.load("z.npy")


def refused(capsys: pytest.CaptureFixture[str], code: int) -> str:
    assert code == 2
    error = capsys.readouterr().err
    assert error.startswith("fastlstm: error: ")
    assert len(error.splitlines()) == 1
    return error


@pytest.mark.parametrize("answers", ["each", "classes", "last", "labels"])
@pytest.mark.parametrize("options", ["", "--bidirectional --layers 2 --normalise"])
def test_padding_changes_no_bit(here: Path, answers: str, options: str) -> None:
    weighted = answers in ("each", "classes")
    models, results = [], []
    for prefix, steps in (
        ("", "--lengths lengths.npy"),
        ("more_", "--lengths lengths.npy"),
        ("front_", "--mask front_mask.npy"),
        ("turned_", "--lengths lengths.npy --batch-first"),
        ("turned_", "--mask turned_mask.npy --batch-first"),
    ):
        w = f"--weights {prefix}w.npy" if weighted else ""
        assert train(f"{prefix}x.npy {prefix}{answers}.npy {w} {steps} {options}") == 0
        models.append(model())
        steps = steps.removesuffix(" --batch-first")  # the model knows
        z = run(f"m.npz {prefix}x.npy {steps} --logits")
        if weighted:
            mask = np.load("front_mask.npy") if prefix == "front_" else PRESENT
            z = z.swapaxes(0, 1) if prefix == "turned_" else z
            assert not z[: len(mask)][~mask].any()
            assert not z[len(mask) :].any()
            z = moved_to_front(z, mask)
        results.append(z)
    for other in models[1:]:
        assert other.keys() == models[0].keys()
        for name, array in other.items():
            assert_same_bits(array, models[0][name])
    for z in results[1:]:
        assert_same_bits(np.ascontiguousarray(z), np.ascontiguousarray(results[0]))


def test_validation_from_padded_files(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = "x.npy each.npy --lengths lengths.npy --validation"
    files = f"{command} more_x.npy more_each.npy"
    assert "expected --validation-lengths or" in refused(capsys, train(files))
    assert train(f"{files} --validation-lengths lengths.npy") == 0
    expected = model()
    assert train(f"{command} front_x.npy front_each.npy --validation-mask front_mask.npy") == 0
    for name, array in model().items():
        assert_same_bits(array, expected[name])
    text = refused(capsys, train(f"{command} 0.2 --validation-lengths lengths.npy"))
    assert "need --validation with files" in text


def test_tails_of_weight_zero_are_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("x", "each"):
        array = np.load(f"{name}.npy")
        array[~PRESENT] = 0
        save(f"{name}.npy", array)
    save("w.npy", PRESENT * 1.0)
    for options in ("", "--normalise"):
        command = f"x.npy each.npy --bidirectional {options}"
        assert train(f"{command} --lengths lengths.npy --weights w.npy") == 0
        assert capsys.readouterr().err == ""
        expected = model()
        assert train(f"{command} --weights w.npy") == 0
        notes = capsys.readouterr().err.splitlines()
        assert len(notes) == 1
        assert "taken for padding" in notes[0]
        assert "--lengths or --mask say which steps are padding, --lengths all that" in notes[0]
        for name, array in model().items():
            assert_same_bits(array, expected[name])
    x = np.load("x.npy")
    x[~PRESENT] = -1
    save("x.npy", x)
    text = refused(capsys, train("x.npy each.npy --bidirectional --weights w.npy"))
    assert "it is not clear whether to read them: --lengths or --mask say which" in text
    assert train("x.npy each.npy --bidirectional --weights w.npy --lengths all") == 0
    assert capsys.readouterr().err == ""


def test_missing_answers(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    w, each, classes = (np.load(f"{name}.npy") for name in ("w", "each", "classes"))
    assert train("x.npy each.npy --lengths lengths.npy --weights w.npy") == 0
    known = w.copy()
    known[1, [0, 3]] = 0
    save("known.npy", known)
    floats = np.where(np.isin(classes, (0, 1)), classes, 0).astype(np.float64)
    for options, array, missing in (
        ("", each, np.nan),
        ("--normalise", each, np.nan),
        ("", classes, -100),
        ("--task classification", floats, np.nan),
    ):
        models = []
        for value in (1, missing):
            array[1, [0, 3]] = value
            save("y.npy", array)
            command = f"x.npy y.npy --lengths lengths.npy {options} --validation 0"
            assert train(f"{command} --weights known.npy") == 0
            models.append(model())
        for name, got in models[1].items():
            assert_same_bits(got, models[0][name])
        capsys.readouterr()
        text = refused(capsys, train(command))
        assert text.startswith("fastlstm: error: y.npy: ")
        assert "2 places, the first at (1, 0)" in text
        assert "a weight of 0" in text


def test_inputs_that_are_not_finite(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = np.load("x.npy")
    x[~PRESENT] = np.nan
    save("x.npy", x)
    assert train("x.npy each.npy --lengths lengths.npy --normalise") == 0
    capsys.readouterr()
    x[3, 0, 1] = np.inf
    save("x.npy", x)
    text = refused(capsys, train("x.npy each.npy --lengths lengths.npy"))
    assert "x.npy: holds NaN or infinity in 1 place, the first at (3, 0), expected finite" in text


# layouts


@pytest.mark.parametrize("suffix", ["npz", "keras", "safetensors", "pt", "onnx"])
def test_the_model_knows_its_layout(
    here: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    packages = {"keras": "h5py", "onnx": "onnx", "safetensors": "safetensors", "pt": "torch"}
    if suffix in packages:
        require(packages[suffix])
    layer = LSTM(I, 5, 2, batch_first=True, seed=0)
    fastlstm.save(layer, f"a.{suffix}")
    x = np.load("turned_x.npy")
    expected = layer(x)[0]
    assert_same_bits(run(f"a.{suffix} turned_x.npy"), expected)
    assert_same_bits(run(f"a.{suffix} turned_x.npy --batch-first"), expected)


def test_a_flag_that_contradicts_the_model(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fastlstm.save(LSTM(I, 5, seed=0), "a.npz")
    assert cli.main(["run", "a.npz", "turned_x.npy", "-o", "z.npy", "--batch-first"]) == 2
    assert (
        "--batch-first: a.npz was made for (T, B, I), not for (B, T, I)" in capsys.readouterr().err
    )
    assert not Path("z.npy").exists()
    arrays = LSTM(I, 5, seed=0).state_dict()
    np.savez("raw.npz", **arrays)  # does not say
    for options, words in (
        ("", "(T, B, I), --batch-first is (B, T, I)"),
        ("--batch-first", "asked"),
    ):
        run(f"raw.npz x.npy {options}")
        assert "MODEL does not say which axis is time" in (out := capsys.readouterr().out)
        assert words in out


def test_train_stores_the_layout(here: Path) -> None:
    for answers in ("each", "labels"):
        assert train(f"turned_x.npy turned_{answers}.npy --batch-first") == 0
        found = weights.read("m.npz").choose()
        assert found.option("batch_first") is True
        z = run("m.npz turned_x.npy")
        assert z.shape[:2] == (B, T) if answers == "each" else z.shape[0] == B


def test_the_other_layout_was_meant(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = refused(capsys, train("turned_x.npy turned_labels.npy"))
    assert "the shapes fit with --batch-first" in text
    text = refused(capsys, train("x.npy labels.npy --batch-first"))
    assert "the shapes fit without --batch-first" in text
    text = refused(capsys, train("turned_x.npy turned_each.npy --lengths lengths.npy"))
    assert "lengths.npy: got shape (10,), expected (6,)" in text
    assert "with --batch-first" in text
    for name in ("x", "each"):
        save(f"one_{name}.npy", np.load(f"{name}.npy").swapaxes(0, 1)[:1])
    text = refused(capsys, train("one_x.npy one_each.npy --validation 0"))
    assert "6 sequences of 1 step; with --batch-first it is 1 of 6 steps" in text
    assert train("one_x.npy one_each.npy --validation 0 --batch-first") == 0
    assert train("one_x.npy one_each.npy --validation 0 --lengths all") == 0


# run


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("sequences", [True, False])
def test_run_with_lengths_and_masks(here: Path, directions: int, sequences: bool) -> None:
    layer = layer_class(directions)(I, 5, 2, seed=0, return_sequences=sequences)
    fastlstm.save(layer, "a.npz")
    expected, _ = layer(np.load("x.npy"), lengths=LENGTHS)
    mask = np.load("front_mask.npy")
    for options in ("", "--chunk 2", "--batch-size 3 --chunk 1"):
        assert_same_bits(run(f"a.npz x.npy --lengths lengths.npy {options}"), expected)
        z = run(f"a.npz front_x.npy --mask front_mask.npy {options}")
        if sequences:
            assert not z[~mask].any()
            z = moved_to_front(z, mask)
        assert_same_bits(z, expected)


def moved_to_front(z: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Move each sequence's steps to the front."""
    out = np.zeros((T, *z.shape[1:]), z.dtype)
    for b in range(B):
        out[: LENGTHS[b], b] = z[: len(mask)][mask[:, b], b]
    return out


def test_run_refuses_lengths_that_do_not_fit(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fastlstm.save(BiLSTM(I, 5, seed=0), "a.npz")
    save("long.npy", LENGTHS + 1)
    for options, words in (
        ("--lengths long.npy", "long.npy: got 2 to 7, expected numbers from 0 to T = 6"),
        ("--lengths no.npy", "no.npy: no such file"),
        ("--mask turned_mask.npy", "turned_mask.npy: got shape (10, 6), expected (6, 10)"),
        ("--mask w.npy", "w.npy: got other numbers than 0 and 1"),
        ("--mask front_mask.npy --lengths lengths.npy", "lengths, mask: got both"),
    ):
        code = cli.main(["run", "a.npz", "x.npy", "-o", "z.npy", *options.split()])
        assert words in refused(capsys, code)
        assert not Path("z.npy").exists()


# units


@pytest.mark.parametrize("answers", ["each", "labels"])
def test_one_unit_of_losses(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, answers: str
) -> None:
    save("each.npy", 100 + 30 * np.load("each.npy"))
    drawn: list[tuple[list[Epoch], str]] = []

    def plot(history: list[Epoch], path: Path, *, label: str, title: str) -> None:
        assert title == "m.npz: LSTM(3, 6, dtype=float64)\ntrained on x.npy, " + f"{answers}.npy"
        drawn.append((history, label))
        path.touch()

    monkeypatch.setattr("fastlstm.cli.train.plot_history", plot)
    monkeypatch.setattr("fastlstm.cli.train.check_picture", lambda _: None)
    command = f"train x.npy {answers}.npy -o m.npz --plot p.png --normalise --dtype float64"
    options = "--lengths lengths.npy --epochs 5 --batch-size 3 --hidden 6 --lr 0.01"
    assert cli.main([*command.split(), *options.split()]) == 0
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.endswith("best")]
    told = re.findall(r"validation loss (\S+)", lines[-1])[0]
    at_the_end = re.findall(r"^ +validation +loss (\S+)", captured.out, re.MULTILINE)[0]
    assert told == at_the_end
    ((history, label),) = drawn
    assert min(e.validation.loss for e in history if e.validation) == pytest.approx(
        float(told), rel=1e-3
    )
    unit = "mean squared error in the unit of Y, squared" if answers == "each" else "cross-entropy"
    assert unit in label
    assert unit in captured.out
    assert ("in Y's unit: loss" in lines[-1]) == (answers == "each")
    for line in captured.err.splitlines():
        for loss, rmse in re.findall(r"loss (\S+)  RMSE (\S+)", line):
            assert float(rmse) ** 2 == pytest.approx(float(loss), rel=2e-3)
