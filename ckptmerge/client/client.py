"""Client: a running service, a method for each thing that can be asked of it."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote

from pydantic import ValidationError

from ckptmerge.client.answer import read_answer
from ckptmerge.client.blobs import send
from ckptmerge.client.partial_file import OnBytes
from ckptmerge.client.pin import pin
from ckptmerge.client.push import Attempt, push
from ckptmerge.client.revision import CHAMPION, Revision, step_of
from ckptmerge.client.session import Patience, Session
from ckptmerge.client.trust import Trusted
from ckptmerge.config.study import StudySpec
from ckptmerge.domain.token import Scope
from ckptmerge.errors import InvalidInputError
from ckptmerge.wire.best import Best
from ckptmerge.wire.checkpoints import CheckpointResource
from ckptmerge.wire.lineage import ArtifactResource
from ckptmerge.wire.retention import RetentionResource
from ckptmerge.wire.runs import (
    NewRun,
    NewStudySpec,
    RunChange,
    RunPage,
    RunResource,
    WindowPolicySpec,
)
from ckptmerge.wire.studies import (
    NewStudy,
    StudyChange,
    StudyPage,
    StudyResource,
    TrialPage,
    TrialResource,
)
from ckptmerge.wire.tokens import (
    AuditEntry,
    AuditPage,
    CreatedToken,
    NewToken,
    TokenPage,
    TokenResource,
)

Page = TypeVar("Page", RunPage, StudyPage, TrialPage, TokenPage, AuditPage)

GOING = frozenset({"searching", "frozen"})
"""States of a study that has not come to its end."""


class Client:
    """A service of ours; a context manager, safe from several threads.

    Every method raises ServiceError where the service refuses, stays busy, or cannot be reached.

    Args:
        url: Where the service is, such as ``http://127.0.0.1:8117``.
        token: Bearer token, where the service asks for one.
        ca: PEM file of the authorities to believe where the address is https; by default the one
            that ``CKPTMERGE_CA`` names, or else the system's.
        patience: How often to try.

    Raises:
        InvalidInputError: the address or the token cannot be one, or the authorities not be read.
            A service that is down is none.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        ca: Trusted | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._session = Session(url, token, ca=ca, patience=patience)

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

    def create_run(
        self,
        name: str,
        *,
        held_out: str | None = None,
        study: NewStudySpec | None = None,
        window: WindowPolicySpec | None = None,
    ) -> RunResource:
        """Make a run; the same again changes nothing.

        Args:
            name: Of the run.
            held_out: Name of the held-out set that judges it; the service's own by default.
            study: How to search its windows; as the service does by default.
            window: Which checkpoints a study is opened over; likewise.

        Raises:
            InvalidInputError: the name cannot be one.
        """
        try:
            new = NewRun(name=name, held_out=held_out, study=study, window=window)
        except ValidationError as error:
            wrong = "; ".join(f"{item['loc'][0]}: {item['msg']}" for item in error.errors())
            raise InvalidInputError(f"run {name!r} cannot be made: {wrong}") from error
        return read_answer(RunResource, self._session.json("POST", "/v1/runs", new))

    def change_run(self, name: str, change: RunChange) -> RunResource:
        """Change a run's settings for studies to come; fields that were not set stay as they are.

        Other documents begin a new era, in which the best is measured again.
        """
        settings = change.model_dump(mode="json", exclude_unset=True)
        answer = self._session.json("PATCH", f"/v1/runs/{_quoted(name)}", settings)
        return read_answer(RunResource, answer)

    def put_held_out_set(self, name: str, path: str | Path) -> None:
        """Upload the documents of a ``.jsonl`` file under a name that runs can name.

        Raises:
            InvalidInputError: the file cannot be read.
            ServiceError: also where other documents go by this name.
        """
        send(self._session, Path(path), f"/v1/held-out-sets/{_quoted(name)}")

    def push(
        self,
        path: str | Path,
        *,
        run: str,
        step: int | None = None,
        tokens: int | None = None,
        attempt: Attempt | None = None,
        supersede: bool = False,
        on_bytes: OnBytes | None = None,
    ) -> CheckpointResource:
        """Upload and register a checkpoint; see `ckptmerge.client.push.push`.

        Raises:
            CheckpointFormatError: there is no safetensors model at ``path``.
            InvalidInputError: its step cannot be found, or a file cannot be sent.
        """
        return push(
            self._session, Path(path), run=run, step=step, tokens=tokens, attempt=attempt,
            supersede=supersede,
            on_bytes=on_bytes,
        )  # fmt: skip

    def best(self, run: str) -> Revision[Best]:
        """Ask for the best weights of a run; its ``download`` fetches them."""
        answer = self._session.json("GET", f"/v1/runs/{_quoted(run)}/best")
        return Revision(self._session, read_answer(Best, answer))

    def checkpoint(self, run: str, step: int) -> Revision[CheckpointResource]:
        """Ask for the checkpoint at a step, of the latest attempt that has one."""
        answer = self._session.json("GET", f"/v1/runs/{_quoted(run)}/checkpoints/{step}")
        return Revision(self._session, read_answer(CheckpointResource, answer))

    def artifact(self, name: str) -> Revision[ArtifactResource]:
        """Ask for a promoted merge by its id."""
        answer = self._session.json("GET", f"/v1/artifacts/{_quoted(name)}")
        return Revision(self._session, read_answer(ArtifactResource, answer))

    def revision(
        self, run: str, name: str
    ) -> Revision[Best] | Revision[CheckpointResource] | Revision[ArtifactResource]:
        """Ask for weights of a run as people name them.

        Args:
            run: Name of the run.
            name: ``main`` or ``best``, ``step-N`` for a checkpoint, or the id of a merge.

        Raises:
            InvalidInputError: the name is none of these, or the merge is of another run.
        """
        if name in CHAMPION:
            return self.best(run)
        step = step_of(name)
        if step is not None:
            return self.checkpoint(run, step)
        if not name.startswith("a_"):
            raise InvalidInputError(
                f"{name!r} names no weights of a run; use main, step-N, or the id of a promoted "
                "merge (a_…)"
            )
        found = self.artifact(name)
        if found.answer.run != run:
            raise InvalidInputError(f"merge {name} is of run {found.answer.run!r}, not of {run!r}")
        return found

    def pin(self, run: str, revision: str, *, reason: str) -> Best:
        """Make a revision the best of a run by hand; see `ckptmerge.client.pin.pin`.

        Raises:
            InvalidInputError: it names no revision, or there is no reason.
        """
        return pin(self._session, run, revision, reason=reason)

    def unpin(self, run: str) -> None:
        """Let go of what was pinned; where nothing is, nothing happens."""
        self._session.json("DELETE", f"/v1/runs/{_quoted(run)}/best")

    def retention(self, run: str) -> RetentionResource:
        """Say what a run's retention would remove now, and what holds the rest."""
        answer = self._session.json("GET", f"/v1/runs/{_quoted(run)}/retention")
        return read_answer(RetentionResource, answer)

    def apply_retention(self, run: str) -> RetentionResource:
        """Remove now what a run's retention lets go, and say what that was."""
        answer = self._session.json("POST", f"/v1/runs/{_quoted(run)}/retention")
        return read_answer(RetentionResource, answer)

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

    def watch(
        self, study: str, *, every: float = 1.0, sleep: Callable[[float], None] = time.sleep
    ) -> Iterator[TrialResource]:
        """Yield each trial of a study once it has come to its end, until the study has.

        Args:
            study: Id of the study.
            every: Seconds between looks.
            sleep: Waits so many seconds.
        """
        told: set[int] = set()
        while True:
            going = self.study(study).state in GOING
            for trial in self.trials(study):
                if trial.state != "pending" and trial.trial not in told:
                    told.add(trial.trial)
                    yield trial
            if not going:
                return
            sleep(every)

    def open_study(
        self,
        run: str,
        *,
        steps: Sequence[int] | None = None,
        checkpoints: Sequence[str] | None = None,
        window: int | None = None,
        study: StudySpec | None = None,
    ) -> StudyResource:
        """Open a study by hand over checkpoints of a run, named in one of three ways.

        Args:
            run: Name of the run.
            steps: Training steps, oldest first.
            checkpoints: Ids, oldest first.
            window: So many of the newest.
            study: How to search; fields that were not set are as the run says.

        Raises:
            InvalidInputError: these cannot be what a study is opened over.
        """
        said = {
            "run": run,
            "steps": None if steps is None else list(steps),
            "checkpoints": None if checkpoints is None else list(checkpoints),
            "window": window,
            "study": None if study is None else study.model_dump(mode="json", exclude_unset=True),
        }
        body = {name: value for name, value in said.items() if value is not None}
        try:
            NewStudy.model_validate(body)
        except ValidationError as error:
            wrong = "; ".join(f"{item['loc'][0]}: {item['msg']}" for item in error.errors())
            raise InvalidInputError(f"no study of run {run!r} can be opened: {wrong}") from error
        return read_answer(StudyResource, self._session.json("POST", "/v1/studies", body))

    def cancel_study(self, name: str) -> StudyResource:
        """End a study before its verdict; the best stays as it is."""
        change = StudyChange(state="cancelled")
        answer = self._session.json("PATCH", f"/v1/studies/{_quoted(name)}", change)
        return read_answer(StudyResource, answer)

    def create_token(
        self, name: str, *, scopes: Sequence[Scope], expires_in: int | None = None
    ) -> CreatedToken:
        """Make an access token; the answer holds its secret, which is kept nowhere else.

        Args:
            name: Who or what it is for; of those that are good, one of each name.
            scopes: What it allows.
            expires_in: Seconds until it ends by itself.

        Raises:
            InvalidInputError: no token can be like this.
        """
        said = {"name": name, "scopes": [s.value for s in scopes], "expires_in": expires_in}
        try:
            new = NewToken.model_validate(said)
        except ValidationError as error:
            wrong = "; ".join(f"{item['loc'][0]}: {item['msg']}" for item in error.errors())
            raise InvalidInputError(f"no such token can be made: {wrong}") from error
        return read_answer(CreatedToken, self._session.json("POST", "/v1/tokens", new))

    def tokens(self) -> Iterator[TokenResource]:
        """List every access token that was given out."""
        return chain.from_iterable(page.items for page in self._pages(TokenPage, "/v1/tokens"))

    def revoke_token(self, name: str) -> TokenResource:
        """End an access token by its id, and every request that is made with it."""
        answer = self._session.json("DELETE", f"/v1/tokens/{_quoted(name)}")
        return read_answer(TokenResource, answer)

    def audit(self) -> Iterator[AuditEntry]:
        """List what was changed by whom, oldest first."""
        return chain.from_iterable(page.items for page in self._pages(AuditPage, "/v1/audit"))

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
