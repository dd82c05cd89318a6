import json
import re
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from ckptmerge.domain.certificate import MINIMUM_UNITS
from ckptmerge.errors import InvalidInputError
from ckptmerge.evaluation.documents import load_held_out
from ckptmerge.pretrain.text import (
    DOMAINS,
    LARGEST,
    SMALLEST,
    Corpus,
    Source,
    _python_files,
    divide,
    installed_sources,
    read_corpus,
    read_module,
    write_held_out,
)


def paragraph(mark: str, lines: int = 6) -> str:
    return "\n".join(f"{mark}: line {n} of a paragraph like no other" for n in range(lines))


def file(name: str, domain: str = "code", paragraphs: int = 6) -> Source:
    text = "\n\n".join(paragraph(f"{domain} {name} {n}") for n in range(paragraphs))
    return Source(domain, name, text)


def files(count: int, domain: str = "code") -> list[Source]:
    return [file(f"file{n}.py", domain) for n in range(count)]


def divided(sources: Sequence[Source], **limits: int) -> Corpus:
    limits = {"train_bytes": 10**9, "held_out_documents": 10**9} | limits
    domains = sorted({source.domain for source in sources})
    return divide(sources, domains=domains, **limits)


def sides(corpus: Corpus) -> dict[str, set[str]]:
    """The sides of the split on which each file's text stands."""
    found: dict[str, set[str]] = {}
    for texts in corpus.train.values():
        for text in texts:
            for name in re.findall(r"file\d+\.py", text):
                found.setdefault(name, set()).add("train")
    for document in corpus.held_out:
        for name in re.findall(r"file\d+\.py", document.text or ""):
            found.setdefault(name, set()).add("held out")
    return found


def test_a_file_is_trained_on_or_held_out_but_never_both():
    found = sides(divided([*files(60, "code"), *files(60, "docstrings")]))
    assert len(found) == 60
    assert all(len(places) == 1 for places in found.values())
    assert 12 <= sum(places == {"held out"} for places in found.values()) <= 36


def test_a_new_file_moves_no_other_across():
    before = sides(divided(files(40)))
    after = sides(divided([file("file99.py"), *files(40)]))
    assert {name: after[name] for name in before} == before


def test_a_text_without_a_file_is_divided_by_block():
    text = file("file0.py", paragraphs=60).text
    corpus = divided([Source("reference", "topic", text, whole=False)])
    assert corpus.train["reference"]
    assert corpus.held_out
    assert all(document.group is None for document in corpus.held_out)


def test_a_paragraph_that_comes_again_is_dropped_whatever_its_spacing():
    planted = paragraph("planted")
    again = planted.replace(" ", "   ").replace("\n", " \n\t")
    sources = [
        Source(source.domain, source.name, f"{source.text}\n\n{again if n else planted}")
        for n, source in enumerate([*files(20), *files(20, "docstrings")])
    ]
    corpus = divided(sources)
    texts = [text for domain in corpus.train.values() for text in domain]
    texts += [document.text or "" for document in corpus.held_out]
    assert sum(text.count("planted") for text in texts) == planted.count("planted")


def test_documents_are_small_and_keep_their_lines():
    long = Source("code", "file7.py", paragraph("long", lines=200))
    lines = {line for source in [*files(40), long] for line in source.text.splitlines()}
    documents = divided([*files(40), long]).held_out
    for document in documents:
        assert document.text is not None
        assert SMALLEST <= len(document.text) <= SMALLEST + LARGEST + 1
        assert all(line in lines for line in document.text.splitlines() if line)


def test_a_line_too_long_for_a_document_is_left_out():
    table = "0x00, " * LARGEST
    sources = [Source("code", s.name, f"{s.text}\n{table}") for s in files(20)]
    corpus = divided(sources)
    assert not any("0x00" in text for text in corpus.train["code"])
    assert not any("0x00" in (document.text or "") for document in corpus.held_out)


def test_training_text_ends_with_the_file_that_fills_it():
    whole = divided(files(60)).train["code"]
    part = divided(files(60), train_bytes=5000).train["code"]
    assert set(part) < set(whole)
    assert sum(map(len, part[:-1])) < 5000 <= sum(map(len, part))


def test_every_file_gives_a_document_before_any_gives_its_second():
    whole = Counter(document.group for document in divided(files(60)).held_out)
    limit = len(whole) + 3
    part = Counter(
        document.group for document in divided(files(60), held_out_documents=limit).held_out
    )
    assert part.keys() == whole.keys()
    assert sorted(part.values())[-4:] == [1, 2, 2, 2]


def test_an_installation_without_source_files_is_refused():
    with pytest.raises(InvalidInputError, match="'docstrings'"):
        divide(files(20), train_bytes=1000, held_out_documents=10, domains=["code", "docstrings"])


def module(folder: Path, source: str) -> tuple[str, str]:
    path = folder / "module.py"
    path.write_text(source, encoding="utf-8")
    return read_module(path)


def test_docstrings_leave_the_code_wherever_they_stand(tmp_path: Path):
    docstring = '"""' + "A sentence that explains something. " * 6 + '"""'
    source = f"""
{docstring}
try:
    class A:
        {docstring.replace("something", "a class")}
        async def method(self):
            {docstring.replace("something", "a method")}
            return 'not a docstring'
except ImportError:
    match 1:
        case _:
            def hidden():
                {docstring.replace("something", "a hidden function")}
                'an expression'
"""
    docstrings, code = module(tmp_path, source)
    assert "explains" not in code
    assert "return 'not a docstring'" in code
    assert "'an expression'" in code
    subjects = re.findall(r"explains (\w+(?: \w+)*)\.", docstrings)
    assert list(dict.fromkeys(subjects)) == [
        "something",
        "a class",
        "a method",
        "a hidden function",
    ]


def test_short_docstrings_are_dropped_from_both(tmp_path: Path):
    assert module(tmp_path, 'x = 1\ndef f():\n    """Short."""\n') == ("", "x = 1\ndef f():")


@pytest.mark.parametrize("source", ["def f(:\n", "x = '\0'\n"])
def test_a_file_that_is_not_python_gives_no_text(tmp_path: Path, source: str):
    assert module(tmp_path, source) == ("", "")


def test_a_file_that_is_not_utf8_gives_no_text(tmp_path: Path):
    (tmp_path / "module.py").write_bytes(b"# -*- coding: latin-1 -*-\nx = '\xe9'\n")
    assert read_module(tmp_path / "module.py") == ("", "")


def test_invalid_escapes_in_a_module_warn_nobody(tmp_path: Path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module(tmp_path, "x = '\\d'\n")
    assert caught == []


def test_a_docstring_with_half_a_surrogate_pair_becomes_text_that_can_be_written(tmp_path: Path):
    docstrings, _ = module(tmp_path, f'"""\\ud800 {"and much more text " * 20}"""\n')
    assert docstrings.encode()


def test_held_out_documents_are_read_back_as_they_were(tmp_path: Path):
    corpus = divided([*files(20), Source("reference", "é", file("x").text, whole=False)])
    write_held_out(corpus, tmp_path / "held-out.jsonl")
    assert load_held_out(tmp_path / "held-out.jsonl").documents == corpus.held_out
    rows = [json.loads(line) for line in (tmp_path / "held-out.jsonl").read_text().splitlines()]
    assert {row["domain"] for row in rows if "group" in row} == {"code"}


def test_files_are_found_in_one_order_without_tests_packages_and_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("b.py", "a/z.py", "a/c.py", "a/test/d.py", "site-packages/e.py", "f.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    expected = [tmp_path / name for name in ("a/c.py", "a/z.py", "b.py")]
    assert list(_python_files(tmp_path)) == expected
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: reversed(list(listed(path))))
    assert list(_python_files(tmp_path)) == expected


def test_an_installation_without_the_reference_still_has_its_source_files(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    assert next(installed_sources()).domain == "docstrings"


@pytest.fixture(scope="module")
def installed() -> Corpus:
    return read_corpus()


def test_this_installation_has_enough_documents_for_every_split(installed: Corpus):
    documents = Counter((document.domain, document.split) for document in installed.held_out)
    units = {(document.domain, document.split, document.unit) for document in installed.held_out}
    independent = Counter((domain, split) for domain, split, _ in units)
    assert len(documents) == 3 * len(DOMAINS)
    assert min(documents.values()) >= 60
    assert min(independent.values()) >= MINIMUM_UNITS


def test_this_installation_has_enough_to_train_on(installed: Corpus):
    size = {d: sum(len(t.encode()) for t in installed.train[d]) for d in DOMAINS}
    assert size["reference"] > 150_000
    assert size["docstrings"] > 1_000_000
    assert size["code"] > 1_900_000


@pytest.mark.parametrize("domain", DOMAINS)
def test_hardly_a_held_out_line_was_trained_on(installed: Corpus, domain: str):
    trained = {
        line.strip() for texts in installed.train.values() for t in texts for line in t.split("\n")
    }
    lines = [
        line.strip()
        for document in installed.held_out
        if document.domain == domain
        for line in (document.text or "").split("\n")
        if len(line.strip()) > 40
    ]
    assert len(lines) > 500
    assert sum(line in trained for line in lines) < 0.1 * len(lines)
