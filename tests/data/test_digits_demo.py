"""The bundled classifier of handwritten digits."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastlstm import demo
from fastlstm.data import model_path
from fastlstm.training import Network
from support.optional import require
from support.paths import EXAMPLES

pytestmark = [pytest.mark.default_isa, pytest.mark.wheel]


@pytest.fixture(scope="module")
def result() -> demo.DigitsResult:
    require("sklearn")
    return demo.run_digits()


def test_the_model_is_small_and_says_what_it_is() -> None:
    assert model_path("digits").stat().st_size < 20_000
    network = Network.load(model_path("digits"))
    assert network.classes == tuple("0123456789")
    assert network.metadata["data"] == "scikit-learn's digits, the first 1047"
    assert network.predict(np.zeros((1, 8, 8))).shape == (1,)


def test_digits_that_took_no_part_are_told(result: demo.DigitsResult) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    evaluation = result.evaluation
    assert evaluation.weight == 500
    assert evaluation.accuracy > 0.9
    assert result.baselines["commonest digit"] < 0.2
    x, y = demo.digits_data()
    _, held_out = demo.DIGITS_SPLIT
    predicted = Network.load(model_path("digits")).predict(x[held_out:]).astype(int)
    np.testing.assert_array_equal(
        evaluation.confusion, metrics.confusion_matrix(y[held_out:], predicted)
    )
    neighbors = pytest.importorskip("sklearn.neighbors")
    nearest = neighbors.KNeighborsClassifier(1).fit(
        x[: demo.DIGITS_SPLIT[0]].reshape(-1, 64), y[: demo.DIGITS_SPLIT[0]]
    )
    accuracy = nearest.score(x[held_out:].reshape(-1, 64), y[held_out:])
    assert result.baselines["nearest picture"] == pytest.approx(accuracy, abs=0.005)  # of ties


def test_the_picture(result: demo.DigitsResult, tmp_path: Path) -> None:
    require("matplotlib")
    demo.plot_digits(result, tmp_path / "c.png")
    assert (tmp_path / "c.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_script_trains_such_a_model(tmp_path: Path) -> None:
    require("sklearn")
    command = [sys.executable, EXAMPLES / "train_digits.py", "--epochs", "10"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    found = re.search(r"accuracy (0\.\d+), F1", done.stdout)
    assert found
    assert float(found[1]) > 0.85
