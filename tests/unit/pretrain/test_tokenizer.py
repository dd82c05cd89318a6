from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ckptmerge.pretrain.tokenizer import END_OF_TEXT, END_OF_TEXT_ID, train_tokenizer

TEXTS = [f"def f{n}(x):\n    return x + {n}  # adds {n} to its argument" for n in range(200)]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, vocabulary=300)


@given(text=st.text())
def test_any_text_survives(tokenizer: PreTrainedTokenizerFast, text: str):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_vocabulary_is_as_large_as_asked(tokenizer: PreTrainedTokenizerFast):
    assert len(tokenizer) == 300
    assert max(tokenizer(TEXTS[7])["input_ids"]) > 257  # merges are in use


def test_encoding_adds_no_special_token(tokenizer: PreTrainedTokenizerFast):
    assert tokenizer.convert_tokens_to_ids(END_OF_TEXT) == END_OF_TEXT_ID
    assert END_OF_TEXT_ID not in tokenizer(TEXTS[0])["input_ids"]


def test_a_long_text_warns_nobody(
    tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
):
    tokenizer(" ".join(TEXTS) * 50)
    assert not caplog.records


def test_the_same_texts_give_the_same_tokens(tokenizer: PreTrainedTokenizerFast):
    again = train_tokenizer(iter(TEXTS), vocabulary=300)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_a_saved_tokenizer_is_read_back_by_transformers(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
):
    tokenizer.save_pretrained(tmp_path)
    read = AutoTokenizer.from_pretrained(tmp_path)
    assert read(TEXTS[3])["input_ids"] == tokenizer(TEXTS[3])["input_ids"]
    assert read.eos_token == END_OF_TEXT
