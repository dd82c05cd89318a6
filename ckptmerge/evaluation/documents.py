"""Held-out documents: reading them, telling them apart, and splitting them for good.

A number is only comparable with another one measured on the same documents, so a held-out set has
a digest; and a claim is only worth something on documents that the search never saw, so a set
falls into splits by a rule that nobody can steer and that no later document can disturb.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ckptmerge.domain.digest import Digest, canonical_json
from ckptmerge.domain.observation import Split
from ckptmerge.errors import HeldOutSetError

DEFAULT_DOMAIN = "text"
"""Domain of documents that name none. A ``.txt`` file's documents are of this domain too, not of
one named after the file: renaming a file must not move its documents between splits."""

_SALT = "ckptmerge held-out split 1"
"""Part of every split key. Changing it would show the search what used to be unseen."""

_LINE_LIMIT = 16 * 2**20
"""Bytes of one document. It is one unit of every statistic: what is longer is a corpus."""

_DOCUMENTS_LIMIT = 1_000_000
"""Documents of one set; long before that, more of them no longer make an interval smaller."""

_DOMAIN_LIMIT = 200
"""Characters of a domain's name, which stands in every answer and table."""

_NO_ID = 2**53
"""JSON carries no larger number everywhere; which ids a model has is known when it is loaded."""

_SEARCH_BELOW = 2**64 // 2
_CERTIFY_BELOW = 2**64 // 4 * 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A text, or token ids, on which models are scored; the unit of every statistic.

    Raises:
        HeldOutSetError: it has neither text nor ids, or both; it is empty; an id is negative or
            2^53 and above; the domain or group is empty, or the domain longer than 200 characters;
            or a text cannot be written as UTF-8.
    """

    text: str | None = None
    ids: tuple[int, ...] | None = None
    domain: str = DEFAULT_DOMAIN
    """What kind of text it is; every domain counts on its own in the objective."""
    group: str | None = None
    """What it was taken from (a source file, a book): documents of a group stay together."""

    def __post_init__(self) -> None:
        if self.text is None and self.ids is None:
            raise HeldOutSetError("a document needs 'text' or 'ids', this one has neither")
        if self.text is not None and self.ids is not None:
            raise HeldOutSetError("a document has 'text' or 'ids', not both; remove one of them")
        if not (self.ids or (self.text and self.text.strip())):
            raise HeldOutSetError("the document is empty; remove it")
        _require_ids(self.ids or ())
        if not self.domain or self.group == "":
            raise HeldOutSetError("'domain' and 'group' must not be empty; leave them out instead")
        _require_name(self.domain)
        for value in (self.text, self.domain, self.group):
            _require_unicode(value or "")

    @property
    def digest(self) -> Digest:
        """Identity of exactly this document."""
        return Digest.of_json(self.as_json())

    @property
    def unit(self) -> str:
        """The independent unit it belongs to, within its domain: its group, or itself."""
        return f"document {self.digest.hex}" if self.group is None else f"group {self.group}"

    @property
    def content(self) -> str:
        """What makes two documents duplicates: domain, and ids or text but for its spacing.

        Text is compared in Unicode form NFC with every run of white space as one space.
        """
        if self.text is None:
            return canonical_json([self.domain, "ids", list(self.ids or ())])
        text = " ".join(unicodedata.normalize("NFC", self.text).split())
        return canonical_json([self.domain, "text", text])

    @property
    def split(self) -> Split:
        """The split it belongs to, now and for ever.

        A threshold on a hash, not a rank among hashes: documents added later move none that are
        there, at the price of splits that are half, a quarter and a quarter only on average. The
        hash is of domain and group, so that no file is searched on and certified on; or, without
        a group, of what duplicates have in common, so that copies fall together.
        """
        grouped = canonical_json([self.domain, "group", self.group])
        key = self.content if self.group is None else grouped
        position = int(Digest.of_bytes(f"{_SALT}\n{key}".encode()).hex[:16], 16)
        if position < _SEARCH_BELOW:
            return Split.SEARCH
        return Split.CERTIFY if position < _CERTIFY_BELOW else Split.AUDIT

    def as_json(self) -> dict[str, object]:
        """Return the object that stands for it on a line of a ``.jsonl`` file."""
        values = {"text": self.text, "ids": self.ids, "domain": self.domain, "group": self.group}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class HeldOutSet:
    """Documents that training never saw; duplicates are dropped.

    Of duplicates the one with the smallest digest stays, so that the set does not depend on the
    order of the documents.

    Raises:
        HeldOutSetError: fewer than two different documents.
    """

    documents: tuple[Document, ...]
    source: str = field(default="the held-out set", compare=False)
    """What error messages call it, such as the file it came from."""
    duplicates: int = field(init=False, compare=False)
    """How many documents were dropped because they repeat another one."""

    def __post_init__(self) -> None:
        unique: dict[str, Document] = {}
        for document in self.documents:
            rival = unique.setdefault(document.content, document)
            if document != rival and document.digest < rival.digest:
                unique[document.content] = document
        if len(unique) < 2:
            repeated = f" ({len(self.documents)} copies of it)" if len(self.documents) > 1 else ""
            raise HeldOutSetError(
                f"{self.source}: {len(unique)} document{repeated} cannot judge a model, because "
                "nothing shows how much documents differ; give at least two, better hundreds"
            )
        object.__setattr__(self, "duplicates", len(self.documents) - len(unique))
        object.__setattr__(self, "documents", tuple(unique.values()))

    def __len__(self) -> int:
        return len(self.documents)

    def __iter__(self) -> Iterator[Document]:
        return iter(self.documents)

    @cached_property
    def digest(self) -> Digest:
        """Identity of the set: the same documents in another order are the same set."""
        return Digest.of_json(sorted(str(document.digest) for document in self.documents))

    @property
    def domains(self) -> tuple[str, ...]:
        """The documents' domains, sorted."""
        return tuple(sorted({document.domain for document in self.documents}))

    def split(self, split: Split) -> "HeldOutSet":
        """Return the documents of one split; ``Split.ALL`` returns the whole set.

        Every domain must have two independent units in it: without any, the split would measure
        another objective under the same name; with one, nothing would bound its error.

        Raises:
            HeldOutSetError: a domain has fewer than two independent units in the split.
        """
        if split is Split.ALL:
            return self
        chosen = tuple(document for document in self.documents if document.split is split)
        units = Counter(domain for domain, _ in {(each.domain, each.unit) for each in chosen})
        thin = [domain for domain in self.domains if units[domain] < 2]
        if thin:
            raise HeldOutSetError(
                f"{self.source}: {len(chosen)} of {len(self)} documents fall into the {split} "
                f"split, and domain {thin[0]!r} has {units[thin[0]]} independent documents there, "
                "where two are the least. Documents are split by hash, those of a group together "
                "and as one: add documents or groups to every domain, better hundreds"
            )
        return HeldOutSet(chosen, source=f"{self.source} ({split} split)")


def load_held_out(path: Path | str) -> HeldOutSet:
    """Read held-out documents from a ``.jsonl`` or ``.txt`` file.

    A line of ``.jsonl`` is ``{"text": …}`` or ``{"ids": […]}``, with ``"domain"`` and ``"group"``
    where there are any; further keys are ignored. In ``.txt`` blank lines separate documents.

    Raises:
        HeldOutSetError: the file is missing, empty or of another kind, or a line is no document;
            the message names the file and the line.
    """
    path = Path(path)
    if path.suffix not in {".jsonl", ".txt"}:
        raise HeldOutSetError(
            f"{path}: held-out documents are read from .jsonl or .txt, not {path.suffix!r}"
        )
    with _reading(path):
        documents = tuple(_parse_lines(path) if path.suffix == ".jsonl" else _paragraphs(path))
    if not documents:
        raise HeldOutSetError(f"{path} is empty: it holds no document; give at least two")
    return HeldOutSet(documents, source=str(path))


def write_documents(documents: Iterable[Document], path: Path | str) -> None:
    """Write documents as ``.jsonl``, one a line, so that ``load_held_out`` reads them back."""
    lines = (json.dumps(each.as_json(), ensure_ascii=False) + "\n" for each in documents)
    with Path(path).open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(lines)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise HeldOutSetError(f"{path}: there is no such file of held-out documents") from error
    except OSError as error:
        raise HeldOutSetError(f"{path} cannot be read: {error.strerror}") from error


def _paragraphs(path: Path) -> Iterator[Document]:
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, content.count(b"\n", 0, error.start) + 1) from error
    for paragraph in re.split(r"\n\s*\n", text):
        if paragraph.strip():
            yield Document(text=paragraph.strip("\n"))


def _parse_lines(path: Path) -> Iterator[Document]:
    # Only "\n" ends a line: splitlines() also cuts at U+2028, which may stand inside a JSON string.
    with path.open("rb") as file:
        for number in range(1, _DOCUMENTS_LIMIT + 1):
            line = file.readline(_LINE_LIMIT + 1)
            if not line:
                return
            try:
                text = _decode(line, "utf-8-sig" if number == 1 else "utf-8")
                if text.strip():
                    yield _parse(text)
            except UnicodeDecodeError as error:
                raise _not_utf8(path, number) from error
            except HeldOutSetError as error:
                raise HeldOutSetError(f"{path}, line {number}: {error}") from error
    raise HeldOutSetError(f"{path} has {_DOCUMENTS_LIMIT:,} lines or more; take a sample of them")


def _decode(line: bytes, encoding: str) -> str:
    if len(line) > _LINE_LIMIT:
        raise HeldOutSetError(
            f"it is longer than the {_LINE_LIMIT:,} bytes of a document; split it up"
        )
    return line.decode(encoding)


def _not_utf8(path: Path, line: int) -> HeldOutSetError:
    return HeldOutSetError(f"{path}, line {line}: not UTF-8; convert the file")


def _parse(line: str) -> Document:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise HeldOutSetError(f"not JSON: {error}") from error
    if not isinstance(row, Mapping):
        raise HeldOutSetError('not an object such as {"text": "…", "domain": "web"}')
    ids = row.get("ids")
    if ids is not None and not (isinstance(ids, list) and all(type(each) is int for each in ids)):
        raise HeldOutSetError("'ids' must be a list of whole numbers, 0 or above")
    for name in ("text", "domain", "group"):
        if not isinstance(row.get(name), str | None):
            raise HeldOutSetError(f"{name!r} must be a string, not {type(row[name]).__name__}")
    return Document(
        text=row.get("text"),
        ids=None if ids is None else tuple(ids),
        domain=DEFAULT_DOMAIN if row.get("domain") is None else row["domain"],
        group=row.get("group"),
    )


def _require_ids(ids: Sequence[int]) -> None:
    for wrong in (min(ids, default=0), max(ids, default=0)):
        if not 0 <= wrong < _NO_ID:
            raise HeldOutSetError(
                f"'ids' holds {str(wrong)[:20]}; token ids are never negative, nor {_NO_ID} or more"
            )


def _require_name(domain: str) -> None:
    if len(domain) > _DOMAIN_LIMIT:
        raise HeldOutSetError(
            f"'domain' is {len(domain):,} characters long; a name has at most {_DOMAIN_LIMIT}"
        )


def _require_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise HeldOutSetError(
            "the text holds half of a surrogate pair, which is no character; repair it"
        ) from error
