"""What all commands have in common: help, completion, signals, pipes; info and bench."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastlstm
from fastlstm import _core, cli
from fastlstm.cli._commands import COMMANDS, Command
from support.command_line import error_line, parameters, refused
from support.layers import built
from support.optional import require

pytestmark = [pytest.mark.default_isa, pytest.mark.wheel]

INFO = (
    "version",
    "isa",
    "isas",
    "quantized isas",
    "features",
    "threads",
    "cache sizes",
    "compiler",
)


def test_info_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert list(facts) == list(INFO)
    assert facts["version"] == fastlstm.__version__
    assert facts["isa"] == _core.default_isa()
    assert facts["isas"] == list(_core.available_isas())
    assert facts["isa"] in facts["isas"]
    assert facts["features"] == list(_core.cpu_features())
    assert facts["threads"] == fastlstm.get_num_threads()
    assert facts["cache sizes"] == _core.cache_sizes()
    assert facts["compiler"] == _core.compiler() != ""


def test_info_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info"]) == 0
    lines = dict(line.split(":", 1) for line in capsys.readouterr().out.splitlines())
    assert list(lines) == list(INFO)
    assert lines["isa"].strip() == _core.default_isa()
    assert lines["features"].strip() == (", ".join(_core.cpu_features()) or "none")
    for level, size in _core.cache_sizes().items():
        assert f"{level} {size // 1024} KiB" in lines["cache sizes"]


def test_isa_from_the_environment(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTLSTM_ISA", "scalar")
    assert cli.main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["isa"] == "scalar"
    monkeypatch.setenv("FASTLSTM_ISA", "z80")
    assert cli.main(["info"]) == 2
    assert "z80" in error_line(capsys)
    assert "z80" in refused(capsys, "m.npz", "x.npy", "-o", "y.npy")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_help(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([command.name, "--help"])
    assert caught.value.code == 0
    assert f"{command.name} [" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert re.search(rf"^ +{command.name} +{command.help}$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize("command", ["info", "run --help", "inspect m.npz", "--version"])
def test_a_command_imports_no_other(here: Path, command: str) -> None:
    script = (
        "import sys\nfrom fastlstm.cli import main\n"
        f"try: main({command.split()})\nexcept SystemExit: pass\n"
        "print(*(name for name in sys.modules if name.startswith('fastlstm.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    imported = set(done.stdout.splitlines()[-1].split())
    own = {f"fastlstm.cli.{name}" for name in command.split()}
    assert imported & {f"fastlstm.cli.{each.name}" for each in COMMANDS} <= own
    heavy = {"training", "optim", "bench", "demo", "data", "reference"}
    assert not imported & {f"fastlstm.{name}" for name in heavy}


@pytest.mark.skipif(os.name != "posix", reason="pipes")
@pytest.mark.parametrize(
    ("command", "unbuffered"),
    [
        *itertools.product(["info", "inspect m.npz", "run", "bench --list"], ["", "1"]),
        ("--help", ""),  # unbuffered, argparse ignores what it cannot write
    ],
)
def test_nobody_reads_the_output(here: Path, command: str, unbuffered: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    line = [sys.executable, "-m", "fastlstm", *command.split()]
    env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    try:
        done = subprocess.run(
            line, stdout=writing, stderr=subprocess.PIPE, env=env, text=True, check=False
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("command", ["info", "bench --list"])
def test_the_output_cannot_be_written(command: str) -> None:
    with Path("/dev/full").open("w") as full:
        line = [sys.executable, "-m", "fastlstm", *command.split()]
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"fastlstm: error: .*No space left on device\n", done.stderr)


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_bench_is_ended_by_signals_as_the_others_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    bench = importlib.import_module("fastlstm.bench")
    monkeypatch.setattr(bench, "_run", lambda *_: signal.raise_signal(getattr(signal, name)))
    monkeypatch.setattr("fastlstm.bench.threads.environment_is_set", lambda _: True)
    with pytest.raises(SystemExit) as left:
        sys.exit(cli.main(["bench", "--peers", "", "--cell", "lstm-T1-B1-H16"]))
    assert left.value.code == code
    assert capsys.readouterr().err == ("fastlstm: interrupted\n" if code == 130 else "")


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        cli.main(list(arguments))
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys) == printed(capsys, "--help") == printed(capsys, "help")
    for command in ("run", "bench"):
        assert printed(capsys, "help", command) == printed(capsys, command, "--help")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "did you mean train? (see fastlstm --help)"),
        (["help", "benhc"], "did you mean bench? (see fastlstm --help)"),
        (["run", "--batchfirst"], "--batchfirst, did you mean --batch-first? (see fastlstm run "),
        (["bench", "--treads=2"], "did you mean --threads? (see fastlstm bench --help)"),
        (["train", "x", "y", "-o", "m", "--optimizer", "adan"], "did you mean adam? (see fastlstm"),
        (["inspect", "m.npz", "--frobnicate"], "--frobnicate (see fastlstm inspect --help)"),
        (["bench", "--grid", "shrot"], "(see fastlstm bench --help)"),
        (["bench", "--rounds", "x"], "(see fastlstm bench --help)"),
    ],
)
def test_what_may_have_been_meant(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert words in error_line(capsys)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    require("shtab")
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in (*(command.name for command in COMMANDS), "--batch-first", "--threads"):
        assert word in script
    if shell == "bash":
        checked = subprocess.run(["bash", "-n"], input=script, text=True, check=False)
        assert checked.returncode == 0


def test_completion_without_shtab(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert cli.main(["completion", "bash"]) == 2
    assert 'pip install "fastlstm[cli]"' in error_line(capsys)


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("command", [["-m", "fastlstm", "info"], ["fastlstm", "info"]])
def test_interrupted_while_it_is_imported(here: Path, command: list[str]) -> None:
    """As the script that is installed does it, too: a Ctrl-C in the middle of NumPy's import."""
    (here / "numpy").mkdir()
    (here / "numpy" / "__init__.py").write_text(
        "import signal\nsignal.raise_signal(signal.SIGINT)\n"
    )
    (here / "fastlstm").write_text(
        "import sys\nfrom fastlstm.cli import main\nif __name__ == '__main__': sys.exit(main())\n"
    )
    root = str(Path(fastlstm.__file__).parent.parent)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), root])}
    line = [sys.executable, "-P", *command]
    done = subprocess.run(line, capture_output=True, text=True, env=env, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_library_leaves_ctrl_c_alone() -> None:
    script = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    script += "import fastlstm\nprint(signal.getsignal(signal.SIGINT))"
    line = [sys.executable, "-c", script]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert "default_int_handler" in done.stdout


def test_bench_gets_all_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[list[str]] = []

    def bench_main(argv: list[str]) -> int:
        received.append(argv)
        return 1

    monkeypatch.setattr("fastlstm.bench.main", bench_main)
    assert cli.main(["bench", "--json", "out.json", "--help", "run"]) == 1
    assert received == [["--json", "out.json", "--help", "run"]]


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_version(capsys: pytest.CaptureFixture[str], option: str) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([option])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"fastlstm {fastlstm.__version__}\n"


def test_as_a_process(here: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "fastlstm", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    good = run("run", "m.npz", "x.npy", "-o", "y.npy")
    assert (good.returncode, good.stdout[:6]) == (0, "y.npy:")
    expected, _ = built(parameters())(np.load("x.npy"))
    np.testing.assert_array_equal(np.load("y.npy"), expected)
    bad = run("run", "m.npz", "x.npy", "-o", "y.npy")
    assert bad.returncode == 2
    assert bad.stderr == "fastlstm: error: y.npy: exists, use --force to replace it\n"
    assert run("--version").stdout == f"fastlstm {fastlstm.__version__}\n"
