import torch

from ckptmerge.proposal.acquisition import NEAREST, first_new


def rows(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_the_first_point_that_repeats_none_is_taken():
    known = rows([0.5, 0.5], [0.0, 1.0])
    points = rows([0.0, 1.0], [0.5 + NEAREST / 3, 0.5 - NEAREST / 3], [0.4, 0.6], [1.0, 0.0])
    assert first_new(points, known) == 2


def test_where_every_point_is_a_repeat_the_farthest_is_taken():
    known = rows([0.5, 0.5])
    points = rows([0.5, 0.5], [0.5 + NEAREST / 3, 0.5 - NEAREST / 3])
    assert first_new(points, known) == 1


def test_where_nothing_is_known_the_best_point_is_taken():
    assert first_new(rows([0.3, 0.7], [1.0, 0.0]), torch.empty(0, 2, dtype=torch.float64)) == 0
