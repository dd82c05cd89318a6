import pytest
import torch

from ckptmerge.errors import InvalidInputError
from ckptmerge.pretrain.job import DEMO, FIXTURE
from ckptmerge.pretrain.model import ModelShape, build_model
from ckptmerge.pretrain.tokenizer import END_OF_TEXT_ID

SMALL = ModelShape(hidden=16, layers=1, heads=2, vocabulary=257, context=8)


@pytest.mark.parametrize(
    ("shape", "millions"), [(DEMO.shape, 0.54), (FIXTURE.shape, 0.18), (SMALL, 0.01)]
)
def test_the_model_has_as_many_parameters_as_its_shape_says(shape: ModelShape, millions: float):
    model = build_model(shape, seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == shape.parameters
    assert shape.parameters / 1e6 == pytest.approx(millions, abs=0.005)


def test_input_and_output_share_one_embedding():
    model = build_model(SMALL, seed=0)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_generation_ends_with_the_end_of_text():
    assert build_model(SMALL, seed=0).generation_config.eos_token_id == END_OF_TEXT_ID


def test_the_seed_alone_decides_the_first_weights():
    state = torch.random.get_rng_state()
    first, again, other = (build_model(SMALL, seed=seed) for seed in (1, 1, 2))
    torch.testing.assert_close(torch.random.get_rng_state(), state)
    for name, tensor in first.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"heads": 3}, "multiple of 6"), ({"vocabulary": 256}, "at least 257")],
)
def test_a_shape_that_cannot_be_built_is_refused(change: dict[str, int], message: str):
    fields = {"hidden": 16, "layers": 1, "heads": 2, "vocabulary": 257, "context": 8} | change
    with pytest.raises(InvalidInputError, match=message):
        ModelShape(**fields)
