"""The log of looks: every time the documents that decide or report are read, and what for.

A certificate is worth its level only if each test is counted, so the count lives in a file beside
the held-out set and outlives the process.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ckptmerge.domain.digest import Digest
from ckptmerge.domain.observation import Split
from ckptmerge.domain.run import Era, Run
from ckptmerge.errors import InvalidInputError


class LookLog:
    """An append-only JSON-lines file, ``<held-out file>.looks.jsonl`` unless named otherwise."""

    def __init__(self, path: Path, *, held_out: Digest, clock: Callable[[], str]) -> None:
        self._path = path
        self._held_out = str(held_out)
        self._clock = clock

    @classmethod
    def for_set(cls, held_out: Digest, file: Path, *, named: str | Path | None = None) -> "LookLog":
        """Return the log of a held-out set: the one named, else the one beside its file."""
        path = file.with_name(file.name + ".looks.jsonl") if named is None else Path(named)
        return cls(path, held_out=held_out, clock=utc_now)

    def run(self, name: str) -> Run:
        """Return the run, with the tests that its era on this held-out set has spent.

        Raises:
            InvalidInputError: the name is no run name, or the log cannot be read.
        """
        tests = [
            look["test"] for look in self._looks() if look.get("run") == name and "test" in look
        ]
        return Run(name, Era(Digest.parse(self._held_out), max(tests, default=0)))

    def test(self, name: str, *, subject: Digest, rivals: Sequence[Digest]) -> int:
        """Record a test on the certify split and return its number in the run's era.

        The same test made again (same bytes, same rivals, same documents) has the same outcome, so
        it keeps its number and spends nothing.
        """
        key = {"run": name, "subject": str(subject), "rivals": sorted(map(str, rivals))}
        for look in self._looks():
            if "test" in look and all(look.get(field) == value for field, value in key.items()):
                return int(look["test"])
        number, _ = self.run(name).era.next_test()
        self._append({"at": self._clock(), "split": Split.CERTIFY, **key, "test": number})
        return number

    def look(self, split: Split, *, subject: Digest) -> None:
        """Record that certify or audit documents were read without a test."""
        self._append({"at": self._clock(), "split": split, "subject": str(subject)})

    def _looks(self) -> list[dict[str, Any]]:
        try:
            lines = self._path.read_text("utf-8").splitlines()
            looks = [json.loads(line) for line in lines if line.strip()]
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise InvalidInputError(
                f"cannot read the log of looks {self._path}: {error}; without it no test can be "
                "counted. Restore it, or move it away to start over knowingly"
            ) from error
        return [look for look in looks if look.get("held_out") == self._held_out]

    def _append(self, look: dict[str, object]) -> None:
        line = json.dumps({"held_out": self._held_out, **look}) + "\n"
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InvalidInputError(
                f"cannot write the log of looks {self._path}: {error}; put the held-out file where "
                "it can be written beside, or name another log with --looks"
            ) from error


def utc_now() -> str:
    """Return the time for a log entry, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
