"""`fastlstm.bench.processes`: which processors a process and its children use, and for how long."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from fastlstm.bench.processes import bind, processor_seconds

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")

#: Works for a tenth of a second of a processor, says so, and waits to be ended.
BUSY = "import time\nwhile time.process_time() < 0.1: pass\nprint('done', flush=True)\ninput()"


def test_children_are_bound_and_counted() -> None:
    before, every = processor_seconds(), os.sched_getaffinity(0)
    with subprocess.Popen([sys.executable, "-c", BUSY], stdin=-1, stdout=-1, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "done\n"
        during = processor_seconds() - before
        try:
            bind({min(every)})
            assert os.sched_getaffinity(child.pid) == os.sched_getaffinity(0) == {min(every)}
        finally:
            bind(every)
        assert os.sched_getaffinity(child.pid) == os.sched_getaffinity(0) == every
        child.communicate("\n")
    assert during > 0.08  # ticks are of a hundredth of a second
    assert processor_seconds() - before >= during  # what has ended still counts
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    expected = sum(each.ru_utime + each.ru_stime for each in usage)
    assert abs(processor_seconds() - expected) < 0.2
