import json

import pytest

from ckptmerge.domain.observation import Split
from ckptmerge.errors import HeldOutSetError
from ckptmerge.evaluation import documents
from ckptmerge.evaluation.documents import Document, HeldOutSet, load_held_out, write_documents


def texts(count, domain="text", group=None):
    return tuple(
        Document(text=f"{domain} number {i}", domain=domain, group=group and group(i))
        for i in range(count)
    )


def membership(documents):
    held_out = HeldOutSet(documents)
    splits = (Split.SEARCH, Split.CERTIFY, Split.AUDIT)
    return {each: split for split in splits for each in held_out.split(split)}


def test_the_splits_share_no_document_and_leave_none_out():
    documents = texts(400)
    splits = [
        set(HeldOutSet(documents).split(s)) for s in (Split.SEARCH, Split.CERTIFY, Split.AUDIT)
    ]
    assert sum(map(len, splits)) == 400
    assert set.union(*splits) == set(documents)
    assert HeldOutSet(documents).split(Split.ALL).documents == documents


def test_splits_are_a_half_and_two_quarters_of_every_domain():
    held_out = HeldOutSet(texts(2000, "web") + texts(2000, "code"))
    for split, share in ((Split.SEARCH, 0.5), (Split.CERTIFY, 0.25), (Split.AUDIT, 0.25)):
        chosen = held_out.split(split)
        for domain in held_out.domains:
            found = sum(each.domain == domain for each in chosen) / 2000
            assert found == pytest.approx(share, abs=0.03)


def test_the_split_rule_never_changes():
    # Recorded from the first version: another result would show the search what was unseen.
    rows = [
        Document(text="alpha"),
        Document(text="beta"),
        Document(text="gamma"),
        Document(text="alpha", domain="code"),
        Document(ids=(1, 2, 3)),
        Document(text="alpha", group="a.py"),
    ]
    assert "".join(each.split.value[0] for each in rows) == "saccaa"


def test_adding_documents_moves_none_that_are_there():
    before, after = membership(texts(200)), membership(texts(400) + texts(60, "code"))
    assert all(after[document] is split for document, split in before.items())


def test_documents_of_a_group_stay_together():
    found = membership(texts(400, group=lambda i: f"file-{i % 40}"))
    by_group = {}
    for document, split in found.items():
        by_group.setdefault(document.group, set()).add(split)
    assert all(len(splits) == 1 for splits in by_group.values())
    assert len({next(iter(splits)) for splits in by_group.values()}) == 3


def test_copies_of_a_document_fall_into_one_split_and_only_one_is_kept():
    spaced = [Document(text=f"  text\n\tnumber   {i} ") for i in range(200)]
    for plain, copy in zip(texts(200), spaced, strict=True):
        assert plain.split is copy.split
    held_out = HeldOutSet(texts(200) + tuple(spaced))
    assert (len(held_out), held_out.duplicates) == (200, 200)


def test_composed_and_decomposed_letters_are_the_same_text():
    composed, decomposed = Document(text="caf\u00e9"), Document(text="cafe\u0301")
    assert composed.digest != decomposed.digest
    assert HeldOutSet((composed, decomposed, Document(text="tea"))).duplicates == 1


def test_the_same_text_in_two_domains_is_two_documents():
    held_out = HeldOutSet((Document(text="x", domain="a"), Document(text="x", domain="b")))
    assert (len(held_out), held_out.duplicates) == (2, 0)


def test_the_order_of_documents_does_not_change_the_set():
    documents = (*texts(20), Document(text=" text number 3", group="a"), Document(ids=(1, 2)))
    assert HeldOutSet(documents).digest == HeldOutSet(documents[::-1]).digest


@pytest.mark.parametrize(
    "other",
    [
        Document(text="text number 0 "),
        Document(text="text number 0", domain="code"),
        Document(text="text number 0", group="a"),
    ],
)
def test_another_spelling_domain_or_group_is_another_set(other):
    assert HeldOutSet((other, *texts(20)[1:])).digest != HeldOutSet(texts(20)).digest


def test_a_document_without_a_group_is_its_own_unit():
    a, b = texts(2)
    assert a.unit != b.unit
    assert Document(text="a", group="f").unit == Document(text="b", group="f").unit


def test_a_split_of_a_split_is_itself_and_the_others_are_refused():
    held_out = HeldOutSet(texts(200)).split(Split.SEARCH)
    assert held_out.split(Split.SEARCH).digest == held_out.digest
    with pytest.raises(HeldOutSetError, match=r"0 of .* fall into the certify split"):
        held_out.split(Split.CERTIFY)


def test_a_split_that_lacks_a_domain_is_refused():
    held_out = HeldOutSet(texts(200) + texts(5, "one-file", group=lambda _: "book"))
    for split in (Split.SEARCH, Split.CERTIFY, Split.AUDIT):
        with pytest.raises(HeldOutSetError, match=r"domain 'one-file' has [01] independent"):
            held_out.split(split)


def test_one_document_is_refused():
    with pytest.raises(HeldOutSetError, match="1 document cannot judge"):
        HeldOutSet(texts(1))
    with pytest.raises(HeldOutSetError, match=r"3 copies of it"):
        HeldOutSet(texts(1) * 3)


def test_what_was_written_is_read_back(tmp_path):
    documents = (
        Document(text='line one\n  two "quoted"\u2028three \x85 é 🎉', domain="code", group="é.py"),
        Document(text="  leading space"),
        Document(ids=(0, 5, 2**40), domain="tokens"),
    )
    write_documents(documents, tmp_path / "held.jsonl")
    loaded = load_held_out(tmp_path / "held.jsonl")
    assert loaded.documents == documents
    assert loaded.digest == HeldOutSet(documents).digest


def test_a_text_file_is_one_domain_cut_at_blank_lines(tmp_path):
    path = tmp_path / "wiki.txt"
    path.write_bytes(b"\xef\xbb\xbffirst\r\nsecond line\r\n \t\r\n\r\n  indented\n\n\n\nlast\n")
    loaded = load_held_out(path)
    assert [each.text for each in loaded] == ["first\nsecond line", "  indented", "last"]
    assert loaded.domains == ("text",)


def test_lines_without_a_domain_are_text_and_other_keys_are_ignored(tmp_path):
    path = tmp_path / "held.jsonl"
    path.write_text(
        '{"text": "a", "meta": {"n": 1}}\n\n{"ids": [1], "text": null, "group": null}\n'
    )
    assert load_held_out(path).documents == (Document(text="a"), Document(ids=(1,)))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{text: a}", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('["a"]', "not an object"),
        ('{"domain": "a"}', "neither"),
        ('{"text": "a", "ids": [1]}', "not both"),
        ('{"text": " \\n"}', "empty"),
        ('{"ids": []}', "empty"),
        ('{"ids": [1, 9007199254740992]}', "never negative, nor 9007199254740992"),
        ('{"text": "a", "domain": "' + "x" * 201 + '"}', "at most 200"),
        ('{"ids": [1, -2]}', "never negative"),
        ('{"ids": [1, 2.0]}', "whole numbers"),
        ('{"ids": [true]}', "whole numbers"),
        ('{"ids": "12"}', "whole numbers"),
        ('{"text": 5}', "'text' must be a string, not int"),
        ('{"text": "a", "domain": 5}', "'domain' must be a string"),
        ('{"text": "a", "domain": ""}', "must not be empty"),
        ('{"text": "a", "group": ""}', "must not be empty"),
        ('{"text": "\\ud800"}', "surrogate"),
    ],
)
def test_a_line_that_is_no_document_is_refused_by_number(tmp_path, line, message):
    path = tmp_path / "held.jsonl"
    path.write_text('{"text": "fine"}\n\n' + line + "\n")
    with pytest.raises(HeldOutSetError, match=message) as refusal:
        load_held_out(path)
    assert str(refusal.value).startswith(f"{path}, line 3: ")


def test_bytes_that_are_not_utf8_are_refused_by_line(tmp_path):
    path = tmp_path / "held.jsonl"
    path.write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n')
    with pytest.raises(HeldOutSetError, match=r"line 2: not UTF-8"):
        load_held_out(path)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(HeldOutSetError, match=r"gone\.jsonl: there is no such file"):
        load_held_out(tmp_path / "gone.jsonl")


@pytest.mark.parametrize("name", ["held.jsonl", "held.txt"])
def test_an_empty_file_is_refused(tmp_path, name):
    (tmp_path / name).write_text("\n \n")
    with pytest.raises(HeldOutSetError, match="is empty"):
        load_held_out(tmp_path / name)


def test_a_file_of_one_document_is_refused_by_name(tmp_path):
    (tmp_path / "held.txt").write_text("alone\n")
    with pytest.raises(HeldOutSetError, match=r"held\.txt: 1 document cannot judge"):
        load_held_out(tmp_path / "held.txt")


def test_another_kind_of_file_is_refused(tmp_path):
    (tmp_path / "held.csv").write_text(json.dumps({"text": "a"}))
    with pytest.raises(HeldOutSetError, match=r"\.jsonl or \.txt, not '\.csv'"):
        load_held_out(tmp_path / "held.csv")


def test_a_folder_is_refused(tmp_path):
    (tmp_path / "held.txt").mkdir()
    with pytest.raises(HeldOutSetError, match="cannot be read"):
        load_held_out(tmp_path / "held.txt")


def test_a_line_longer_than_a_document_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "_LINE_LIMIT", 20)
    (tmp_path / "x.jsonl").write_bytes(b'{"text":"a"}\n' + b"x" * 21)
    with pytest.raises(HeldOutSetError, match=r"x\.jsonl, line 2: .*longer than the 20 bytes"):
        load_held_out(tmp_path / "x.jsonl")


def test_more_documents_than_a_set_has_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "_DOCUMENTS_LIMIT", 3)
    (tmp_path / "x.jsonl").write_text('{"text":"a"}\n{"text":"b"}\n')
    assert len(load_held_out(tmp_path / "x.jsonl")) == 2
    (tmp_path / "x.jsonl").write_text('{"text":"a"}\n{"text":"b"}\n{"text":"c"}\n')
    with pytest.raises(HeldOutSetError, match="3 lines or more"):
        load_held_out(tmp_path / "x.jsonl")
