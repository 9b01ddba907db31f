"""Ctrl-C while the command line is being imported: its end, and no traceback.

The package is imported before anything of the command line can run, for ``python -m fastlstm`` and
for the installed script alike, and takes most of the time until then. Nothing has to be cleaned up
so early, so that the system may end the process; `fastlstm.cli` hears Ctrl-C from then on. Out of
reach are the hundredths of a second in which Python itself starts.
"""

from __future__ import annotations

import signal
import sys


def leave_on_interrupt() -> None:
    """Let Ctrl-C end this process at once, if it is the command line's."""
    # A shell's background jobs begin with Ctrl-C ignored, and stay so.
    if _is_the_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _is_the_command() -> bool:
    program = sys.argv[0] if getattr(sys, "argv", None) else ""  # there may be none in C
    if program == "-m":  # until the module is found
        words = sys.orig_argv
        module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
        return module.split(".")[0] == "fastlstm"
    return program.replace("\\", "/").rpartition("/")[2] in ("fastlstm", "fastlstm.exe")
