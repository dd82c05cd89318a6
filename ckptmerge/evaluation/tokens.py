"""Held-out documents as a model's tokens, cut into passages that fit its context."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckptmerge.errors import HeldOutSetError, TokenizerError
from ckptmerge.evaluation.documents import Document, HeldOutSet

CONTEXT_CAP = 2048
"""Longest passage scored by default, in tokens, where a model's own context is longer."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A stretch of one document; its first token is context and is not scored."""

    document: int
    ids: tuple[int, ...]


@dataclass(frozen=True)
class TokenizedSet:
    """Documents as tokens, with the bytes that the scored tokens stand for.

    Documents too short to have a scored token are left out of ``documents``.
    """

    documents: tuple[Document, ...]
    passages: tuple[Passage, ...]
    bytes: tuple[int, ...]
    """UTF-8 bytes of each document's scored tokens."""
    tokens: tuple[int, ...]
    """Scored tokens of each document."""

    def head(self, count: int) -> "TokenizedSet":
        """Return the first ``count`` documents."""
        return TokenizedSet(
            self.documents[:count],
            tuple(passage for passage in self.passages if passage.document < count),
            self.bytes[:count],
            self.tokens[:count],
        )


def load_tokenizer(folder: Path) -> Any:  # transformers' tokenizer classes are untyped
    """Load the tokenizer beside a checkpoint, from its own files alone.

    Raises:
        TokenizerError: there is none, or transformers cannot read it.
    """
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        raise TokenizerError(
            f"{folder} holds no tokenizer.json; put the run's tokenizer beside the checkpoint, "
            "or name its folder with --tokenizer"
        )
    try:
        return AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError, AttributeError) as error:
        raise TokenizerError(
            f"transformers cannot read the tokenizer in {folder}: {error}"
        ) from error
    except Exception as error:
        # The tokenizers library raises bare Exception on a malformed tokenizer.json.
        if type(error) is not Exception:
            raise
        raise TokenizerError(f"the tokenizer in {folder} is malformed: {error}") from error


def tokenize(
    held_out: HeldOutSet, *, tokenizer: Any, vocabulary: int, context: int
) -> TokenizedSet:
    """Turn documents into passages of at most ``context`` tokens.

    Bytes are those of the decoded scored tokens, so that a document given as text and the same
    document given as ids score alike.

    Raises:
        HeldOutSetError: an id does not exist in the model's vocabulary of ``vocabulary`` tokens, or
            no document has a token to score.
    """
    if context < 2:
        raise HeldOutSetError(
            f"a context of {context} tokens leaves nothing to score; use 2 or more"
        )
    documents: list[Document] = []
    passages: list[Passage] = []
    bytes_, tokens = [], []
    for document, ids in zip(held_out.documents, _ids(held_out.documents, tokenizer), strict=True):
        if ids and max(ids) >= vocabulary:
            raise HeldOutSetError(
                f"token id {max(ids)} does not exist in this model's vocabulary of {vocabulary} "
                f"(domain {document.domain!r}): the documents were tokenized for another model"
            )
        parts = [ids[i : i + context] for i in range(0, len(ids), context)]
        parts = [part for part in parts if len(part) > 1]
        size = sum(len(text.encode()) for text in _decode(tokenizer, [p[1:] for p in parts]))
        if not size:
            continue
        passages += [Passage(len(documents), tuple(part)) for part in parts]
        documents.append(document)
        bytes_.append(size)
        tokens.append(sum(len(part) - 1 for part in parts))
    if not documents:
        raise HeldOutSetError("no document has two tokens, so there is nothing to score")
    return TokenizedSet(tuple(documents), tuple(passages), tuple(bytes_), tuple(tokens))


def _ids(documents: Sequence[Document], tokenizer: Any) -> Iterator[list[int]]:
    texts = [document.text for document in documents if document.text is not None]
    with _without_length_warning(tokenizer):
        encoded = iter(tokenizer(texts)["input_ids"] if texts else [])
    for document in documents:
        yield list(document.ids) if document.ids is not None else list(next(encoded))


def _decode(tokenizer: Any, parts: list[list[int]]) -> list[str]:
    return [tokenizer.decode(part) for part in parts]


@contextlib.contextmanager
def _without_length_warning(tokenizer: Any) -> Iterator[None]:
    """Long documents are cut here, so transformers need not warn of their length."""
    limit = tokenizer.model_max_length
    tokenizer.model_max_length = int(1e30)
    try:
        yield
    finally:
        tokenizer.model_max_length = limit
