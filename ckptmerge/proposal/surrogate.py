"""The surrogate: a Gaussian process that expects what a merge of one trajectory looks like.

| sign | meaning | shape |
|---|---|---|
| k, d, n | checkpoints; free dimensions; observations | |
| c, x | merge weights; their orthonormal coordinates | k; d |
| X, y | coordinates and values of the observations (bits per byte, negated: higher is better) | n x d; n |
| φ(c) | |c|², t, t² with the mean age t = Σ c_j j / (k - 1) | 3 |
| z | (x - x₀) / ℓ with x₀ the best observation | d |

    k(c, c') = 10 φ(c)·φ(c') + q (1 + z·z')² + r exp(-|z - z'|² / 2)

Within one basin a loss is nearly quadratic in c, so it is a general quadratic (the second term)
plus a smooth remainder (the third). The first term is the part of that quadratic that every
trajectory has: were the checkpoints a drift plus independent noise, the loss would be
b + a₁ |c|² + a₂ t + a₃ t², because averaging divides the noise by 1/|c|² and the drift moves the
mean with the mean age. Its four numbers are learnt from the initial design; what they leave is for
the other terms. The features are centred at x₀, so the prior is wide where nothing was measured.
"""

import math
import warnings
from typing import Any

import torch
from botorch.exceptions.errors import BotorchError, ModelFittingError
from botorch.models import SingleTaskGP
from botorch.optim.core import OptimizationStatus
from botorch.optim.fit import fit_gpytorch_mll_scipy
from gpytorch.kernels import Kernel
from gpytorch.mlls import ExactMarginalLogLikelihood
from gpytorch.priors import NormalPrior
from gpytorch.settings import min_fixed_noise
from jaxtyping import Float64
from linear_operator.utils.errors import NanError, NotPSDError
from torch import Tensor

from ckptmerge.proposal.geometry import Geometry

NOISE_FLOOR = 1e-8
"""Smallest noise variance, relative to the variance of the observations: what a Cholesky factor in
float64 needs at thirty nearly quadratic points, far below what a search must resolve."""

_STRUCTURE = 10.0
"""Prior variance of the trajectory's coefficients, in variances of the observations: wide."""

_MOST_STEPS = 60
"""Iterations of L-BFGS for the four hyperparameters; it ends by itself after about twenty."""

_PRIORS = {"length": (0.5, 1.0), "quadratic": (-1.0, 2.0), "remainder": (-2.0, 2.0)}
"""Mean and standard deviation of the logarithms of ℓ (in weights), q and r (in variances)."""

FIT_ERRORS = (BotorchError, NanError, NotPSDError, torch.linalg.LinAlgError)
"""What a fit that cannot be done raises."""


class TrajectoryKernel(Kernel):
    """The covariance of the module's docstring; hyperparameters are logarithms."""

    def __init__(self, geometry: Geometry, origin: Float64[Tensor, " d"]) -> None:
        super().__init__()
        self.geometry = geometry
        self.origin = origin
        self.ages = torch.linspace(0, 1, geometry.space.size, dtype=torch.float64)
        for name, (mean, deviation) in _PRIORS.items():
            start = torch.nn.Parameter(torch.tensor(mean, dtype=torch.float64))
            self.register_parameter(name, start)
            self.register_prior(f"{name}_prior", NormalPrior(mean, deviation), name)

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **_: Any) -> Tensor:
        """Return the covariances (..., n1, n2) of two sets of coordinates, or their diagonal."""
        scale = torch.exp(-self.length)
        z1, z2 = (x1 - self.origin) * scale, (x2 - self.origin) * scale
        f1, f2 = self._structure(x1), self._structure(x2)
        if diag:
            inner, structure = (z1 * z2).sum(-1), (f1 * f2).sum(-1)
            squares = (z1 - z2).square().sum(-1)
        else:
            inner, structure = z1 @ z2.mT, f1 @ f2.mT
            norms = z1.square().sum(-1, keepdim=True) + z2.square().sum(-1, keepdim=True).mT
            squares = (norms - 2 * inner).clamp(min=0)
        quadratic = self.quadratic.exp() * (1 + inner).square()
        return _STRUCTURE * structure + quadratic + self.remainder.exp() * (-squares / 2).exp()

    def _structure(self, coordinates: Tensor) -> Tensor:
        """Return φ, relative to its value at the origin."""
        return self._features(coordinates) - self._features(self.origin)

    def _features(self, coordinates: Tensor) -> Tensor:
        """Return φ: concentration, mean age and its square."""
        weights = self.geometry.weights(coordinates)
        age = weights @ self.ages
        return torch.stack([weights.square().sum(-1), age, age.square()], dim=-1)


def fit(
    geometry: Geometry,
    weights: Float64[Tensor, "n k"],
    values: Float64[Tensor, " n"],
    variances: Float64[Tensor, " n"],
) -> SingleTaskGP:
    """Fit the surrogate to losses; its posterior is of their negatives, so higher is better.

    Args:
        geometry: Of the search space.
        weights: What was measured.
        values: Losses, in bits per byte.
        variances: Of each value, were the same documents scored again.

    Raises:
        ModelFittingError: the losses are all alike, or no hyperparameters explain them.
        NotPSDError, NanError, LinAlgError: the covariance cannot be factorised.
    """
    spread = float(values.var())
    if len(values) < 2 or not spread > 0 or not math.isfinite(spread):
        raise ModelFittingError("the measured losses are all alike")
    inputs = geometry.coordinates(weights)
    with warnings.catch_warnings(), min_fixed_noise(double_value=NOISE_FLOOR):
        # An unfinished line search is judged by its result below, not by its warning.
        warnings.simplefilter("ignore")
        model = SingleTaskGP(
            inputs,
            -values.unsqueeze(-1),
            variances.clamp(min=NOISE_FLOOR * spread).unsqueeze(-1),
            covar_module=TrajectoryKernel(geometry, inputs[values.argmin()]),
        )
        likelihood = ExactMarginalLogLikelihood(model.likelihood, model)
        likelihood.train()
        result = fit_gpytorch_mll_scipy(likelihood, options={"maxiter": _MOST_STEPS})
    if result.status is OptimizationStatus.FAILURE and not math.isfinite(result.fval):
        raise ModelFittingError(f"no hyperparameters explain the losses: {result.message}")
    return model.eval()
