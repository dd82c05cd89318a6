"""Access tokens: written so that they can be found and told, and good for what they say."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptmerge.domain.digest import Digest
from ckptmerge.domain.identifier import new_id
from ckptmerge.domain.token import Grant, Scope, key_of, widened, write_token
from ckptmerge.errors import InvalidInputError

KEY = new_id("k", now=1.8e9, random=bytes)
SECRETS = st.binary(min_size=32, max_size=32)


def grant(text: str = "t", **changes) -> Grant:
    return Grant(hash=Digest.of_bytes(text.encode()), scopes=(Scope.READ,), **changes)


@given(SECRETS)
def test_a_token_names_its_record_and_can_be_sent_in_a_header(secret: bytes) -> None:
    text = write_token(KEY, secret)
    assert key_of(text) == KEY
    assert re.fullmatch(r"ckm_[0-9A-Z]{26}_[0-9A-Za-z]{49}", text)


@given(SECRETS, SECRETS)
def test_two_secrets_are_two_tokens(one: bytes, other: bytes) -> None:
    assert (write_token(KEY, one) == write_token(KEY, other)) == (one == other)


@given(SECRETS, st.integers(0, 79), st.sampled_from("0aZ_-é "))
def test_a_token_that_was_mistyped_is_none(secret: bytes, place: int, sign: str) -> None:
    text = write_token(KEY, secret)
    mistyped = text[:place] + sign + text[place + 1 :]
    assert (key_of(mistyped) is None) == (mistyped != text)


@pytest.mark.parametrize("text", ["", "ckm_", KEY, "ckm_x_y", write_token(KEY, bytes(32)) + "\n"])
def test_what_only_looks_like_a_token_is_none(text: str) -> None:
    assert key_of(text) is None


def test_a_secret_of_another_length_is_no_secret() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        write_token(KEY, bytes(16))


def test_a_grant_is_opened_by_its_token_alone() -> None:
    assert grant("right").opened_by("right")
    assert not grant("right").opened_by("wrong")


def test_a_grant_without_scopes_cannot_be() -> None:
    with pytest.raises(InvalidInputError, match="checkpoint:write"):
        Grant(hash=Digest.of_bytes(b""), scopes=())


@pytest.mark.parametrize(("now", "end"), [(9.9, None), (10.0, 10.0), (11.0, 10.0)])
def test_a_grant_ends_when_it_says(now: float, end: float | None) -> None:
    assert grant(expires=10.0).ended(now) == end


def test_a_grant_is_revoked_once_and_for_ever() -> None:
    revoked = grant(expires=10.0).revoke(5.0)
    assert revoked.ended(4.9) is None
    assert revoked.ended(5.0) == 5.0
    assert revoked.revoke(7.0) is revoked
    assert grant(expires=10.0).revoke(11.0).revoked is None, "it had ended by itself"


def test_every_scope_reads_and_admin_does_everything() -> None:
    assert widened([Scope.TRIAL]) == {Scope.TRIAL, Scope.READ}
    assert widened([Scope.CHECKPOINT_WRITE]) == {Scope.CHECKPOINT_WRITE, Scope.READ}
    assert widened([Scope.READ]) == {Scope.READ}
    assert widened([Scope.ADMIN]) == set(Scope)
