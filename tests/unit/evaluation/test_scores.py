import dataclasses

import numpy as np
import pytest
from safetensors.numpy import save

from ckptmerge.errors import HeldOutSetError, InvalidInputError
from ckptmerge.evaluation.documents import Document
from ckptmerge.evaluation.scores import DocumentScores, require_same_documents


def scores(**changes):
    fields = {
        "nats": np.array([1.5, 2.0, 0.25]),
        "bytes": np.array([10, 20, 30]),
        "tokens": np.array([3, 4, 5]),
        "domains": ("code", "web", "web"),
        "units": ("group a.py", "document 1", "document é"),
    }
    return DocumentScores(**(fields | changes))


def test_scores_survive_a_round_trip_bit_for_bit():
    before = scores(nats=np.array([0.1, 1e-300, np.nan]))
    after = DocumentScores.from_bytes(before.to_bytes())
    assert after.nats.tobytes() == before.nats.tobytes()
    assert after.bytes.tolist() == [10, 20, 30]
    assert after.tokens.tolist() == [3, 4, 5]
    assert (after.domains, after.units) == (before.domains, before.units)
    assert after.digest == before.digest


def test_equal_scores_are_equal_bytes_and_any_change_shows():
    assert scores().to_bytes() == scores().to_bytes()
    changes = [
        {"nats": np.array([1.5, 2.0, 0.26])},
        {"bytes": np.array([10, 20, 31])},
        {"tokens": np.array([3, 4, 6])},
        {"domains": ("code", "code", "web")},
        {"units": ("group a.py", "document 1", "document 2")},
    ]
    assert len({scores(**change).digest for change in [{}, *changes]}) == 6


def test_scores_take_domains_and_units_from_their_documents():
    documents = [Document(text="a", domain="code", group="f.py"), Document(text="b")]
    made = DocumentScores.of(
        documents, nats=np.array([1.0, 2.0]), bytes=np.array([1, 2]), tokens=np.array([1, 1])
    )
    assert made.domains == ("code", "text")
    assert made.units == (documents[0].unit, documents[1].unit)


def test_scores_cannot_be_changed_afterwards():
    nats = np.array([1.5, 2.0, 0.25])
    made = scores(nats=nats)
    nats[0] = 9
    assert made.nats[0] == 1.5
    with pytest.raises(ValueError, match="read-only"):
        made.nats[0] = 9
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.units = ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"units": ("a", "b")}, "one length"),
        ({"domains": ("a", "b")}, "one length"),
        ({"bytes": np.array([10, 0, 30])}, "no score"),
        ({"tokens": np.array([3, 0, 5])}, "no score"),
    ],
)
def test_fields_that_do_not_belong_together_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        scores(**changes)


def test_scores_of_no_document_are_refused():
    none = np.array([], dtype=np.int64)
    with pytest.raises(ValueError, match="one length above zero"):
        DocumentScores(nats=none.astype(float), bytes=none, tokens=none, domains=(), units=())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not safetensors",
        save({"nats": np.ones(3)}),
        scores().to_bytes()[:-1],
        scores().to_bytes().replace(b"domains", b"domainz"),
        save(
            {"nats": np.ones((3, 1)), "bytes": np.ones((3, 1), int), "tokens": np.ones(3, int)},
            metadata={"documents": '{"domains": ["a", "a", "a"], "units": ["1", "2", "3"]}'},
        ),
        save(
            {"nats": np.ones(2), "bytes": np.ones(1, int), "tokens": np.ones(1, int)},
            metadata={"documents": '{"domains": ["a"], "units": ["1"]}'},
        ),
        save(
            {"nats": np.ones(1), "bytes": np.ones(1), "tokens": np.ones(1, int)},
            metadata={"documents": '{"domains": ["a"], "units": ["1"]}'},
        ),
    ],
)
def test_bytes_that_are_no_scores_are_refused(content):
    with pytest.raises(InvalidInputError, match="not a file of per-document scores"):
        DocumentScores.from_bytes(content)


@pytest.mark.parametrize(
    "changes",
    [
        {"bytes": np.array([10, 20, 31])},
        {"tokens": np.array([3, 4, 6])},
        {"domains": ("web", "web", "web")},
        {"units": ("group a.py", "document 1", "document 2")},
    ],
)
def test_scores_on_other_documents_are_told_apart(changes):
    require_same_documents(scores(), scores(nats=np.array([9.0, 9.0, 9.0])))
    with pytest.raises(HeldOutSetError, match="different documents"):
        require_same_documents(scores(), scores(**changes))


def test_scores_on_fewer_documents_are_told_apart():
    one = np.array([1])
    fewer = DocumentScores(nats=one * 1.0, bytes=one, tokens=one, domains=("a",), units=("1",))
    with pytest.raises(HeldOutSetError, match="3 documents, the other on 1"):
        require_same_documents(scores(), fewer)
