"""An upload under random requests and kills: an offset that was heard of holds for ever."""

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ckptmerge.domain.digest import Digest
from ckptmerge.storage.blobs import read
from ckptmerge.storage.records import UploadRecord
from tests.integration.upload_service import AGE, UploadService

CONTENT = bytes(number % 251 for number in range(300))
DIGEST = Digest.of_bytes(CONTENT)


class Uploads(RuleBasedStateMachine):
    """One upload after the other, against a plain account of what was heard of it."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.service = UploadService(Path(self._folder.name) / "blobs")
        self.address: str | None = None
        self.heard = 0
        """Bytes that the service has said it has."""
        self.complete = False
        self.blob = False
        """Whether the service has said that the blob is there."""

    def teardown(self) -> None:
        self.service.close()
        self._folder.cleanup()

    @precondition(lambda self: self.address is None)
    @rule()
    def create(self) -> None:
        self.address, self.heard, self.complete = self.service.create(CONTENT), 0, False

    @precondition(lambda self: self.address is not None)
    @rule()
    def look(self) -> None:
        assert self.service.offset(self.address) == self.heard

    @precondition(lambda self: self.address is not None)
    @rule(
        offset=st.sampled_from([None, None, None, 0, 150, 299]),
        size=st.sampled_from([0, 1, 99, 150, 300]),
        last=st.booleans(),
    )
    def append(self, offset: int | None, size: int, last: bool) -> None:
        """Append the right bytes at the place that was heard of, or at another."""
        start = self.heard if offset is None else offset
        content = (CONTENT + bytes(300))[start : start + size]
        answer = self.service.append(self.address, content, start, last=last)
        end = start + size
        if start != self.heard:
            assert answer.status_code == 409
            assert answer.headers["upload-offset"] == str(self.heard)
        elif end > len(CONTENT) or (last and end < len(CONTENT)):
            assert answer.status_code == 400
        elif self.complete:
            assert answer.status_code == 410
        else:
            assert answer.status_code == (201 if last else 204)
            assert answer.headers["upload-offset"] == str(end)
            self.heard, self.complete = end, last
            self.blob |= last

    @precondition(lambda self: self.address is not None and not self.complete)
    @rule()
    def append_other_bytes_at_the_end(self) -> None:
        rest = len(CONTENT) - self.heard
        if not rest:
            return
        answer = self.service.append(self.address, b"\xff" * rest, self.heard, last=True)
        assert answer.status_code == 422
        assert self.service.client.head(self.address).status_code == 404
        self.address = None

    @rule()
    def kill_and_start(self) -> None:
        self.service.restart()

    @precondition(lambda self: self.address is not None and not self.complete)
    @rule(extra=st.sampled_from([1, 50, 400]))
    def kill_before_bytes_are_promised(self, extra: int) -> None:
        """What a kill in the middle of an append leaves: bytes that no record knows."""
        [file] = (self.service.root / "partial").iterdir()
        with file.open("ab") as tail:
            tail.write(b"\xee" * extra)
        self.service.restart()

    @precondition(lambda self: self.address is not None)
    @rule()
    def give_up(self) -> None:
        assert self.service.client.delete(self.address).status_code == 204
        assert self.service.client.head(self.address).status_code == 404
        self.address = None

    @rule(seconds=st.sampled_from([1.0, AGE]))
    def time_passes(self, seconds: float) -> None:
        self.service.time += seconds
        self.service.expire()
        if self.address is not None and not self.service.uploads():
            assert self.service.client.head(self.address).status_code == 404
            self.address = None

    @invariant()
    def what_was_said_to_be_there_is_there(self) -> None:
        assert (self.service.blobs.size(DIGEST) is not None) == self.blob
        if self.blob:
            assert read(self.service.blobs, DIGEST) == CONTENT

    @invariant()
    def there_are_bytes_for_what_is_under_way_and_for_nothing_else(self) -> None:
        open_ones = [r.id for r in self.service.uploads() if not r.upload.complete]
        assert list(self.service.blobs.partials) == open_ones
        for record in self.service.uploads():
            assert isinstance(record, UploadRecord)
            assert record.upload.offset == self.heard


TestUploads = Uploads.TestCase
TestUploads.settings = settings(
    max_examples=20, stateful_step_count=20, deadline=None, derandomize=True
)
