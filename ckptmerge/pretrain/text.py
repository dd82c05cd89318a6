"""Real text that every Python installation carries, divided into training and held-out documents.

Three domains: ``reference`` (the language reference behind ``help()``), ``docstrings`` (of the
standard library and numpy) and ``code`` (the standard library's source without its docstrings).

A text is a sequence of paragraphs. A paragraph that stood anywhere before is dropped, since the
same licence or the same parameter description on both sides would make the held-out loss a test of
memory. What is left is packed into blocks of a few hundred characters, which are the documents.
Forty per cent are held out: by source file for docstrings and code (a file's docstrings and its
code on the same side), by block for the reference, which comes out of one file. Of these only some
hundred a domain are kept, from as many files as possible. Forty and not ten per cent, because the
held-out set is later split in four by file, and a quarter must still hold thirty files.
"""

import ast
import hashlib
import importlib.util
import re
import sysconfig
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ckptmerge.errors import InvalidInputError
from ckptmerge.evaluation.documents import Document, write_documents

DOMAINS = ("reference", "docstrings", "code")

HELD_OUT_SHARE = 0.4
"""Share of the files (of the reference: of the blocks) that training never reads."""
HELD_OUT_DOCUMENTS = 360
"""Documents kept for evaluation a domain: 180, 90 and 90 after the split by hash."""
TRAIN_BYTES = 2_000_000
"""Training text kept a domain, in UTF-8 bytes."""

SMALLEST = 200
"""Characters below which a block is no document: its loss would be noise."""
LARGEST = 500
"""Characters beyond which a block takes no further paragraph: many small documents estimate a loss
better than few large ones of the same total size."""

_SALT = "ckptmerge.pretrain.text/1"
_SHORTEST_DOCSTRING = 160
_GAP = re.compile(r"\n\s*\n")
_SKIPPED = frozenset(
    {
        "site-packages", "dist-packages",           # other people's packages
        "test", "tests", "idle_test", "lib2to3",    # repetitive, and often stripped by packagers
        "pydoc_data",                               # holds the whole reference domain
        "encodings",                                # generated character tables
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Source:
    """A text as it was found, before it is divided."""

    domain: str
    name: str
    """Path of the file below its root, such as ``stdlib/json/decoder.py``, or a topic's name."""
    text: str
    whole: bool = True
    """Whether all its blocks must fall on one side of the split."""


@dataclass(frozen=True)
class Corpus:
    """Training texts by domain, and the documents that none of them shares a paragraph with."""

    train: Mapping[str, tuple[str, ...]]
    held_out: tuple[Document, ...]


def read_corpus(
    *, train_bytes: int = TRAIN_BYTES, held_out_documents: int = HELD_OUT_DOCUMENTS
) -> Corpus:
    """Read and divide the text of this Python installation; always the same for the same one.

    Raises:
        InvalidInputError: a domain is empty, since the installation lacks its source files.
    """
    return divide(
        installed_sources(), train_bytes=train_bytes, held_out_documents=held_out_documents
    )


def divide(
    sources: Iterable[Source],
    *,
    train_bytes: int,
    held_out_documents: int,
    domains: Collection[str] = DOMAINS,
) -> Corpus:
    """Divide ``sources`` into at most so much training text and so many documents a domain.

    Each file's (or block's) side follows from its own hash, so that a file which appears or goes
    moves no other across.

    Raises:
        InvalidInputError: one of ``domains`` has no training text or no held-out document.
    """
    seen: set[bytes] = set()
    train: dict[str, list[str]] = {domain: [] for domain in domains}
    held_out: dict[str, list[Document]] = {domain: [] for domain in domains}
    for source in sources:
        kept = []
        for block in _blocks(_unseen(source.text, seen)):
            if _fraction("side", source.name if source.whole else block) < HELD_OUT_SHARE:
                group = source.name if source.whole else None
                document = Document(text=block, domain=source.domain, group=group)
                held_out[source.domain].append(document)
            else:
                kept.append(block)
        if kept:
            train[source.domain].append("\n\n".join(kept))
    for domain in domains:
        if not (train[domain] and held_out[domain]):
            raise InvalidInputError(
                f"this Python installation carries too little text for the domain {domain!r}; "
                "use one that has its .py files and pydoc_data"
            )
    return Corpus(
        train={domain: _first_bytes(texts, train_bytes) for domain, texts in train.items()},
        held_out=tuple(
            document
            for documents in held_out.values()
            for document in _spread(documents, held_out_documents)
        ),
    )


def write_held_out(corpus: Corpus, path: Path) -> None:
    """Write the held-out documents as ``.jsonl``, the form that ``load_held_out`` reads."""
    write_documents(corpus.held_out, path)


def installed_sources() -> Iterator[Source]:
    """Yield the texts of this installation, in the same order every time.

    numpy counts as part of it, since transformers needs it.
    """
    for name, text in sorted(_topics().items()):
        yield Source("reference", name, text, whole=False)
    root = Path(sysconfig.get_path("stdlib"))
    for path in _python_files(root):
        name = f"stdlib/{path.relative_to(root).as_posix()}"
        docstrings, code = read_module(path)
        yield Source("docstrings", name, docstrings)
        yield Source("code", name, code)
    numpy = importlib.util.find_spec("numpy")
    if numpy is not None and numpy.origin is not None:
        root = Path(numpy.origin).parent
        for path in _python_files(root):
            name = f"numpy/{path.relative_to(root).as_posix()}"
            yield Source("docstrings", name, read_module(path)[0])


def _topics() -> Mapping[str, str]:
    try:
        from pydoc_data.topics import topics
    except ModuleNotFoundError:  # some packagers leave it out; `divide` says what is missing
        return {}
    return topics


def read_module(path: Path) -> tuple[str, str]:
    """Return a Python file's longer docstrings, and its code without any docstring.

    A file that is not UTF-8 or not Python (templates are neither) gives two empty texts.
    """
    try:
        source = path.read_text("utf-8")
        with warnings.catch_warnings():
            # Invalid escapes in other people's source are not for our users to read about.
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return "", ""
    docstrings: list[str] = []
    dropped: set[int] = set()
    for node in _docstring_owners(tree):
        docstring = ast.get_docstring(node)
        if docstring is None:
            continue
        dropped.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
        if len(docstring) > _SHORTEST_DOCSTRING:
            # One that spells half a surrogate pair is no text that could be written to a file.
            docstrings.append(docstring.encode("utf-8", "replace").decode())
    lines = enumerate(source.splitlines(), start=1)
    code = "\n".join(line for number, line in lines if number not in dropped)
    return "\n\n".join(docstrings), code


def _docstring_owners(
    tree: ast.Module,
) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Visit statements alone, in the order of the file; ``ast.walk`` visits every name too."""
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
        for field in ("finalbody", "orelse", "handlers", "cases", "body"):
            pending.extend(reversed(getattr(node, field, ())))


def _python_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name in _SKIPPED or path.is_symlink():
            continue
        if path.is_dir():
            yield from _python_files(path)
        elif path.suffix == ".py":
            yield path


def _unseen(text: str, seen: set[bytes]) -> Iterator[str]:
    """Yield the paragraphs that are not in ``seen``, whitespace aside, and add them to it."""
    for paragraph in _GAP.split(text):
        key = hashlib.sha256(" ".join(paragraph.split()).encode()).digest()
        if paragraph.strip() and key not in seen:
            seen.add(key)
            yield paragraph.strip("\n")


def _blocks(paragraphs: Iterable[str]) -> Iterator[str]:
    """Pack paragraphs, in order, into blocks of at least SMALLEST characters.

    None is longer than SMALLEST + LARGEST + 1; a remainder that is too short is left out.
    """
    block = ""
    for piece in (piece for paragraph in paragraphs for piece in _pieces(paragraph)):
        if len(block) >= SMALLEST and len(block) + 2 + len(piece) > LARGEST:
            yield block
            block = piece
        else:
            block = f"{block}\n\n{piece}" if block else piece
    if len(block) >= SMALLEST:
        yield block


def _pieces(paragraph: str) -> Iterator[str]:
    """Cut a paragraph between lines so that no piece is longer than LARGEST.

    Single lines longer than that are tables and encoded data, and are left out.
    """
    piece = ""
    for line in paragraph.split("\n"):
        if len(line) > LARGEST:
            continue
        if piece and len(piece) + 1 + len(line) > LARGEST:
            yield piece
            piece = line
        else:
            piece = f"{piece}\n{line}" if piece else line
    if piece.strip():
        yield piece


def _first_bytes(texts: list[str], limit: int) -> tuple[str, ...]:
    """Keep texts, in the order of their hashes, until they hold ``limit`` bytes."""
    kept, size = [], 0
    for text in sorted(texts, key=lambda text: _fraction("train", text)):
        if size >= limit:
            break
        kept.append(text)
        size += len(text.encode())
    return tuple(kept)


def _spread(documents: list[Document], limit: int) -> list[Document]:
    """Keep ``limit`` documents: every group gives one before any gives its second."""
    taken: Counter[str] = Counter()
    ranked: list[tuple[int, float, Document]] = []
    order = [(_fraction("document", document.content), document) for document in documents]
    for fraction, document in sorted(order, key=lambda pair: pair[0]):
        rank = 0
        if document.group is not None:
            rank = taken[document.group]
            taken[document.group] += 1
        ranked.append((rank, fraction, document))
    ranked.sort(key=lambda row: row[:2])
    return [document for _, _, document in ranked[:limit]]


def _fraction(use: str, key: str) -> float:
    """Map a text to a number in [0, 1) that looks random and is the same everywhere."""
    digest = hashlib.sha256(f"{_SALT}\0{use}\0{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
