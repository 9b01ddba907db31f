"""The command line: ``fastlstm`` or ``python -m fastlstm``.

One module a command, imported when it is asked for: see `fastlstm.cli._commands`. What they share
has a room each: ``_process`` (signals, pipes, exit codes), ``_messages``, ``_options``,
``_arrays`` (what is read), ``_outputs`` (what is written), ``_weights``, ``_models`` (a model, and
data for it), ``_pictures``, ``_progress``.

Exit codes: 0 all well; 1 an LSTM that ``verify`` found to differ, contestants of ``bench`` that do,
or files that ``run --engine`` could not do; 2 a mistake in the arguments or files (one line on
stderr, no traceback); 130 interrupted with
Ctrl-C; 141 nobody reads the output any more, as after ``| head``; 143 terminated.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from fastlstm.cli._commands import make_parser
from fastlstm.cli._process import run_guarded

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process by default.

    Returns
    -------
    int
        Exit code: 0, 1, 2, 130, 141, or 143 of what had something to save.

    Raises
    ------
    SystemExit
        From argparse, for ``--help`` and ``--version`` (code 0) and bad options (code 2); when
        the process is asked to terminate (code 143). Without arguments the help is printed.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] in ([], ["help"]):
        arguments = [*arguments[1:2], "--help"]

    def execute() -> int:
        args = make_parser().parse_args(arguments)
        return args.execute(args) or 0

    return run_guarded(execute)
