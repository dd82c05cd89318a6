"""The watcher: registers checkpoints that settle in a folder, and never one that is half written.

Events are hints and nothing more: on a network file system they are lost, and their queue can
overflow. What counts is the look around, every so often: a checkpoint has settled when everything
in its folder has kept its size and its time of change over two looks, some seconds apart, and a
safetensors header promises no more bytes than there are.
"""

import os
import re
import stat
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog
from watchfiles import watch

from ckptmerge.client.client import Client
from ckptmerge.client.trust import Trusted
from ckptmerge.errors import CkptmergeError, ServiceError
from ckptmerge.formats.held_folder import hold
from ckptmerge.formats.manifest import read_manifest

SETTLED_AFTER = 5.0
"""Seconds over which nothing in a folder may change."""

RESCAN = 10.0
"""Seconds between looks where no event gives a hint."""

_IGNORED = re.compile(r"^\.|\.(tmp|partial|incomplete|lock)$")
"""Names that are not a checkpoint yet: hidden, or still being written by those who say so."""

_log = structlog.get_logger(__name__)

_Seen = Mapping[str, tuple[int, int, int]]
"""Size, time of change and inode of every file of a folder."""


@dataclass(frozen=True)
class Settled:
    """A folder that has not changed for long enough."""

    path: Path
    seen: _Seen


class Watcher:
    """Looks at one folder, and remembers what it has seen.

    Args:
        root: The folder; each of its folders may be a checkpoint.
        settled_after: Seconds over which nothing in a checkpoint may change.
    """

    def __init__(self, root: Path, *, settled_after: float = SETTLED_AFTER) -> None:
        self._root = root
        self._settled_after = settled_after
        self._since: dict[Path, tuple[_Seen, float]] = {}
        self._done: dict[Path, _Seen] = {}
        self._said: dict[Path, str] = {}
        """Why a folder that has settled is no checkpoint; said once, and again when it changes."""

    def look(self, now: float) -> list[Settled]:
        """Return checkpoints that have settled and were not handed out as they are before.

        Args:
            now: Seconds, on any clock that only goes forward.
        """
        found = {path: seen for path in self._candidates() if (seen := _state(path))}
        for gone in self._since.keys() - found.keys():
            del self._since[gone]
            self._said.pop(gone, None)
        settled = []
        for path, seen in sorted(found.items()):
            before, since = self._since.get(path, (None, now))
            if before != seen:
                self._since[path] = (seen, now)
            elif now - since >= self._settled_after and self._done.get(path) != seen:
                settled += [Settled(path, seen)] if self._is_whole(path) else []
        return settled

    def done(self, checkpoint: Settled) -> None:
        """Remember that a checkpoint was dealt with, for as long as it stays as it was."""
        self._done[checkpoint.path] = checkpoint.seen

    def _is_whole(self, path: Path) -> bool:
        reason = _what_is_wrong(path)
        if reason is not None and self._said.get(path) != reason:
            self._said[path] = reason
            _log.warning("a folder is no checkpoint as it is", path=str(path), reason=reason)
        return reason is None

    def _candidates(self) -> list[Path]:
        """List the folders beneath the root; what a link points to is not the root's."""
        try:
            with os.scandir(self._root) as listing:
                entries = list(listing)
        except OSError as error:
            _log.warning("a watched folder cannot be read", reason=str(error))
            return []
        return [
            Path(entry.path)
            for entry in entries
            if entry.is_dir(follow_symlinks=False) and not _IGNORED.search(entry.name)
        ]


def _state(folder: Path) -> _Seen | None:
    """Return what every file of a folder looks like; None where something is still being written.

    Links, pipes and devices are not looked behind: they are no checkpoint's files.
    """
    seen: dict[str, tuple[int, int, int]] = {}
    try:
        with os.scandir(folder) as listing:
            entries = [entry for entry in listing if not entry.name.startswith(".")]
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                seen[entry.name] = (status.st_size, status.st_mtime_ns, status.st_ino)
    except OSError:
        return None
    return None if any(map(_IGNORED.search, seen)) else seen or None


def _what_is_wrong(folder: Path) -> str | None:
    """Say why a folder is no safetensors model with all the bytes its headers promise."""
    try:
        with hold(folder.parent, [folder.name]) as held:
            read_manifest(held, digests=False)
    except (CkptmergeError, OSError) as error:
        return str(error)
    return None


def keep_watching(
    root: Path,
    *,
    run: str,
    url: str,
    token: str | None,
    ca: Trusted | None = None,
    clock: Callable[[], float],
    stop: threading.Event,
    settled_after: float = SETTLED_AFTER,
) -> None:
    """Push every checkpoint that settles in ``root`` to a service, until ``stop`` is set.

    Args:
        root: The folder.
        run: Run that its checkpoints belong to.
        url: Address of the service.
        token: Its bearer token.
        ca: Whom to believe where the address is https.
        clock: Seconds, on a clock that only goes forward.
        stop: Ends the watching.
        settled_after: Seconds over which nothing in a checkpoint may change.
    """
    watcher = Watcher(root, settled_after=settled_after)
    hint = threading.Event()
    threading.Thread(target=_hear, args=(root, hint, stop), daemon=True).start()
    with Client(url, token, ca=ca) as client:
        while not stop.is_set():
            for checkpoint in watcher.look(clock()):
                _push(client, watcher, checkpoint, run)
            hint.wait(min(RESCAN, settled_after))
            hint.clear()


def _push(client: Client, watcher: Watcher, checkpoint: Settled, run: str) -> None:
    try:
        # Held from here on: whoever may write to the root can put a link in a folder's place.
        with hold(checkpoint.path.parent, [checkpoint.path.name]) as folder:
            known = client.push(folder, run=run)
    except ServiceError as error:
        if error.status is None or error.status >= 500:
            _log.warning("the service does not answer; trying again", reason=str(error))
            return
        _log.warning("checkpoint refused", path=str(checkpoint.path), reason=str(error))
    except (CkptmergeError, OSError) as error:
        _log.warning("checkpoint refused", path=str(checkpoint.path), reason=str(error))
    else:
        _log.info("checkpoint registered", path=str(checkpoint.path), id=known.id, step=known.step)
    watcher.done(checkpoint)


def _hear(root: Path, hint: threading.Event, stop: threading.Event) -> None:
    """Set the hint whenever something happens in the folder, for as long as that can be heard."""
    try:
        for _changes in watch(root, stop_event=stop, raise_interrupt=False, recursive=True):
            hint.set()
    except OSError as error:
        _log.warning("no events of a watched folder; looking around instead", reason=str(error))
