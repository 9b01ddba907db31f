"""An engine of jobs that has no workers."""

from __future__ import annotations

from typing import Any

from fastlstm.distributed import _pools
from fastlstm.distributed._jobs import File


class Fake(_pools.Engine):
    """An engine without workers, that tells of what it was given."""

    given: list[File]

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        type(self).given = []

    @property
    def slots(self) -> int:
        return 2

    def submit(self, part: Any) -> Any:
        self.given.append(part)
        try:
            self.call(part)
        except BaseException as error:
            return part, error
        return part, None

    def wait(self, handles: Any) -> Any:
        return handles[:1]

    def error(self, handle: Any) -> Any:
        return handle[1]

    def close(self) -> None:
        pass
