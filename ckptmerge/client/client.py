"""Client: a running service, a method for each thing that can be asked of it."""

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote

from ckptmerge.client.answer import read_answer
from ckptmerge.client.best import BestOfRun
from ckptmerge.client.partial_file import OnBytes
from ckptmerge.client.push import Attempt, push
from ckptmerge.client.session import Patience, Session
from ckptmerge.wire.best import Best
from ckptmerge.wire.checkpoints import CheckpointResource
from ckptmerge.wire.runs import RunPage, RunResource
from ckptmerge.wire.studies import StudyPage, StudyResource, TrialPage, TrialResource

Page = TypeVar("Page", RunPage, StudyPage, TrialPage)


class Client:
    """A service of ours; a context manager, safe from several threads.

    Every method raises ServiceError where the service refuses, stays busy, or cannot be reached.

    Args:
        url: Where the service is, such as ``http://127.0.0.1:8117``.
        token: Bearer token, where the service asks for one.
        patience: How often to try.

    Raises:
        InvalidInputError: the address or the token cannot be one. A service that is down is none.
    """

    def __init__(
        self, url: str, token: str | None = None, *, patience: Patience | None = None
    ) -> None:
        self._session = Session(url, token, patience=patience)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def runs(self) -> Iterator[RunResource]:
        """List the runs."""
        return chain.from_iterable(page.items for page in self._pages(RunPage, "/v1/runs"))

    def run(self, name: str) -> RunResource:
        """Describe a run."""
        return read_answer(RunResource, self._session.json("GET", f"/v1/runs/{_quoted(name)}"))

    def push(
        self,
        path: str | Path,
        *,
        run: str,
        step: int | None = None,
        tokens: int | None = None,
        attempt: Attempt | None = None,
        on_bytes: OnBytes | None = None,
    ) -> CheckpointResource:
        """Upload and register a checkpoint; see `ckptmerge.client.push.push`.

        Raises:
            CheckpointFormatError: there is no safetensors model at ``path``.
            InvalidInputError: its step cannot be found, or a file cannot be sent.
        """
        return push(
            self._session, Path(path), run=run, step=step, tokens=tokens, attempt=attempt,
            on_bytes=on_bytes,
        )  # fmt: skip

    def best(self, run: str) -> BestOfRun:
        """Ask for the best weights of a run; its ``download`` fetches them."""
        answer = self._session.json("GET", f"/v1/runs/{_quoted(run)}/best")
        return BestOfRun(self._session, read_answer(Best, answer))

    def studies(self, run: str | None = None) -> Iterator[StudyResource]:
        """List the studies, newest first; of one run, or of all."""
        params = {} if run is None else {"run": run}
        return chain.from_iterable(
            page.items for page in self._pages(StudyPage, "/v1/studies", params)
        )

    def study(self, name: str) -> StudyResource:
        """Describe a study by its id."""
        return read_answer(StudyResource, self._session.json("GET", f"/v1/studies/{_quoted(name)}"))

    def trials(self, study: str) -> Iterator[TrialResource]:
        """List a study's trials in the order in which they were proposed."""
        path = f"/v1/studies/{_quoted(study)}/trials"
        return chain.from_iterable(page.items for page in self._pages(TrialPage, path))

    def _pages(
        self, kind: type[Page], path: str, params: Mapping[str, str] | None = None
    ) -> Iterator[Page]:
        """Ask for a list page by page, each when the one before has been read."""
        after: dict[str, str] = {}
        while True:
            answer = self._session.json("GET", path, params={**(params or {}), **after})
            page = read_answer(kind, answer)
            yield page
            if page.next is None:
                return
            after = {"after": page.next}


def _quoted(name: str) -> str:
    return quote(name, safe="")
