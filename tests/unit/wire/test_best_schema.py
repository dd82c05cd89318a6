"""The JSON of an answer: one shape, strict, and able to say what is not known."""

import json
import math

import pytest
from pydantic import ValidationError

from ckptmerge.domain.certificate import Certificate, DomainScore, Gain, Interval, Score
from ckptmerge.domain.digest import Digest
from ckptmerge.domain.observation import Split
from ckptmerge.wire import best as wire

DIGEST = Digest.of_bytes(b"x")
SCORE = Score(
    Interval(2.27, 2.21, 2.32),
    Split.AUDIT,
    360,
    {"code": DomainScore(Interval(2.0, -math.inf, math.inf), 1, too_few=True)},
)
GAIN = Gain("newest", Interval(0.115, 0.109, 0.121), 1e-9, Split.CERTIFY, 358)


def test_a_score_has_the_fields_of_the_contract() -> None:
    answer = wire.Score.of(SCORE).model_dump(mode="json")
    assert set(answer) == {"mean", "low", "high", "level", "unit", "split", "documents", "domains"}
    assert answer["unit"] == "bits_per_byte"
    assert answer["split"] == "audit"
    json.dumps(answer, allow_nan=False)


def test_an_unbounded_interval_is_null_not_infinity() -> None:
    part = wire.Score.of(SCORE).domains["code"]
    assert part.low is None
    assert part.high is None
    assert part.too_few


def test_a_gain_names_what_it_is_against() -> None:
    answer = wire.Gain.of(GAIN).model_dump(mode="json")
    assert {"against", "mean", "low", "high", "p", "level", "split", "documents"} <= set(answer)


def test_a_certificate_says_its_level_and_outcome() -> None:
    made = Certificate("winner", 1, (GAIN,), (), DIGEST, 358, 90, DIGEST)
    answer = wire.Certificate.of(made)
    assert answer.passed
    assert answer.alpha == pytest.approx(0.0304, abs=1e-4)
    assert answer.held_out == str(DIGEST)


def test_nothing_beyond_the_contract_goes_out() -> None:
    with pytest.raises(ValidationError):
        wire.Weight.model_validate(
            {"checkpoint": "c", "attempt": 1, "step": 1, "weight": 1.0, "extra": 1}
        )


def test_a_digest_must_be_one() -> None:
    with pytest.raises(ValidationError):
        wire.File(name="m", size=1, digest="md5:1", href="m")
