"""The surrogate: a Gaussian process that expects what a merge of one trajectory looks like.

| sign | meaning | shape |
|---|---|---|
| k, d, n | checkpoints; free dimensions; observations | |
| c, x | merge weights; their orthonormal coordinates | k; d |
| X, y | coordinates of the observations; negated standardised losses: higher is better | n x d; n |
| φ(c) | |c|², t, t² with the mean age t = Σ c_j j / (k - 1) | 3 |
| z | (x - x₀) / ℓ with x₀ the best observation | d |

    k(c, c') = 10 φ(c)·φ(c') + q (1 + z·z')² + r exp(-|z - z'|² / 2)

Within one basin a loss is nearly quadratic in c, so it is a general quadratic (the second term)
plus a smooth remainder (the third). The first term is the part of that quadratic that every
trajectory has: were the checkpoints a drift plus independent noise, the loss would be
b + a₁ |c|² + a₂ t + a₃ t², because averaging leaves |c|² of the noise's variance and the drift
moves the mean with the mean age. Its numbers are learnt from the initial design; what they leave is
for the other terms. φ and z are centred at x₀, so the prior is wide where nothing was measured.

Measured on simplex-8 with 24 passes, 15 of them the initial design, median of five seeds, in 1e-3
bits per byte above the optimum; the rival has BoTorch's default kernel and no trusted region:

| synthetic loss | as shipped | default kernel | best uniform average |
|---|---|---|---|
| noisy descent on 300 directions, per-document minima, [0, 1] | 0.02 | 0.49 | 4.3 |
| the same, weights in [-0.3, 1.5] | 0.03 | 0.86 | 5.6 |
| correlated quadratics, vertices 0.1 to 1 bit worse, [0, 1] | 0.07 | 0.48 | 11.6 |
| the same, weights in [-0.3, 1.5] | 0.39 | 2.7 | 11.6 |
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from botorch.exceptions.errors import BotorchError, ModelFittingError
from botorch.models import SingleTaskGP
from botorch.optim.core import OptimizationStatus
from botorch.optim.fit import fit_gpytorch_mll_scipy
from gpytorch.kernels import Kernel
from gpytorch.means import ConstantMean
from gpytorch.mlls import ExactMarginalLogLikelihood
from gpytorch.priors import NormalPrior
from gpytorch.settings import min_fixed_noise
from jaxtyping import Float64
from linear_operator.utils.errors import NanError, NotPSDError
from torch import Tensor
from torch.nn import Parameter

from ckptmerge.proposal.geometry import Geometry

NOISE_FLOOR = 1e-8
"""Smallest noise variance, relative to the variance of the observations: what a Cholesky factor in
float64 needs at thirty nearly quadratic points, far below what a search must resolve."""

_STRUCTURE = 10.0
"""Prior variance of the trajectory's coefficients, in variances of the observations: wide."""

_MOST_STEPS = 60
"""Iterations of L-BFGS for the four hyperparameters; it ends by itself after about twenty."""

_LENGTH, _QUADRATIC, _REMAINDER = (0.5, 1.0), (-1.0, 2.0), (-2.0, 2.0)
"""Prior mean and deviation of the logarithms of ℓ (in weights), q and r (in variances of y)."""

FIT_ERRORS = (BotorchError, ModelFittingError, NanError, NotPSDError)
"""What a fit that cannot be done raises."""


class TrajectoryKernel(Kernel):
    """The covariance of the module's docstring; its hyperparameters are logarithms."""

    def __init__(self, geometry: Geometry, origin: Float64[Tensor, " d"]) -> None:
        super().__init__()
        self.geometry = geometry
        self.origin = origin
        self.ages = torch.linspace(0, 1, geometry.space.size, dtype=torch.float64)
        self.length = Parameter(torch.tensor(_LENGTH[0], dtype=torch.float64))
        self.quadratic = Parameter(torch.tensor(_QUADRATIC[0], dtype=torch.float64))
        self.remainder = Parameter(torch.tensor(_REMAINDER[0], dtype=torch.float64))
        self.register_prior("length_prior", NormalPrior(*_LENGTH), "length")
        self.register_prior("quadratic_prior", NormalPrior(*_QUADRATIC), "quadratic")
        self.register_prior("remainder_prior", NormalPrior(*_REMAINDER), "remainder")

    def forward(
        self,
        x1: Tensor,
        x2: Tensor,
        diag: bool = False,
        last_dim_is_batch: bool = False,  # noqa: ARG002 - the base class's signature
        **_: Any,
    ) -> Tensor:
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


@dataclass(frozen=True, eq=False)
class Surrogate:
    """A fitted model of the loss over merge weights."""

    model: SingleTaskGP
    """Its posterior, at coordinates, is of y: of standardised, negated losses."""
    geometry: Geometry
    kernel: TrajectoryKernel
    inputs: Float64[Tensor, "n d"]
    noise: Float64[Tensor, " n"]
    """Variance of each standardised observation."""
    residuals: Float64[Tensor, " n"]
    """Standardised observations less the prior mean; higher is better."""
    scale: float
    """Standard deviation of the observed losses."""

    def heights(self, weights: Float64[Tensor, "m k"]) -> Float64[Tensor, " m"]:
        """Return the posterior mean of y."""
        coordinates = self.geometry.coordinates(weights)
        with torch.no_grad():
            return self.model.posterior(coordinates).mean.squeeze(-1)

    def covariances(self, weights: Float64[Tensor, "m k"]) -> Float64[Tensor, "m n"]:
        """Return the prior covariances of points and observations, standardised."""
        return self.kernel.forward(self.geometry.coordinates(weights), self.inputs)

    def surfaces(self, changes: Float64[Tensor, "n r"]) -> Float64[Tensor, "r1 n"]:
        """Return the posterior means that the model would have had with other losses.

        The posterior mean is linear in the observations, so no fit is needed.

        Args:
            changes: What would be added to the observed losses, a column a surface.

        Returns:
            Rows w such that ``covariances(c) @ w`` is the height at c, in deviations of the losses
            and up to a constant; row 0 is the surface of the observed losses themselves.
        """
        with torch.no_grad():
            covariance = self.kernel.forward(self.inputs, self.inputs) + self.noise.diag()
            factor = torch.linalg.cholesky(covariance)
            unchanged = torch.zeros_like(changes[:, :1])
            moved = torch.cat([unchanged, -changes / self.scale], dim=1)
            return torch.cholesky_solve(self.residuals.unsqueeze(-1) + moved, factor).T


def fit(
    geometry: Geometry,
    weights: Float64[Tensor, "n k"],
    losses: Float64[Tensor, " n"],
    variances: Float64[Tensor, " n"],
) -> Surrogate:
    """Fit the surrogate to measured losses by maximum a posteriori.

    Args:
        geometry: Of the search space.
        weights: What was measured.
        losses: In bits per byte.
        variances: Of each loss, were the same documents scored again.

    Raises:
        ModelFittingError: fewer than two losses, all alike, or nothing explains them.
        NotPSDError, NanError: the covariance cannot be factorised.
    """
    spread = float(losses.var()) if len(losses) > 1 else 0.0
    if not spread > 0:
        raise ModelFittingError("the measured losses are all alike")
    inputs, scale = geometry.coordinates(weights), spread**0.5
    # Standardised here rather than by a transform of the model's outcome: the jitter that rescues a
    # Cholesky factor is an absolute number, and bits per byte squared are smaller than it.
    standardised = (losses.mean() - losses) / scale
    noise = (variances / spread).clamp(min=NOISE_FLOOR)
    kernel, mean = TrajectoryKernel(geometry, inputs[losses.argmin()]), ConstantMean()
    with min_fixed_noise(double_value=NOISE_FLOOR):
        model = SingleTaskGP(
            inputs,
            standardised.unsqueeze(-1),
            noise.unsqueeze(-1),
            covar_module=kernel,
            mean_module=mean,
            outcome_transform=None,
        )
        _maximise_posterior(model)
    return Surrogate(
        model=model.eval(),
        geometry=geometry,
        kernel=kernel,
        inputs=inputs,
        noise=noise,
        residuals=standardised - mean.forward(inputs).detach(),
        scale=scale,
    )


def _maximise_posterior(model: SingleTaskGP) -> None:
    """Set the hyperparameters.

    Raises:
        ModelFittingError: the optimiser failed before it reached any finite value.
    """
    likelihood = ExactMarginalLogLikelihood(model.likelihood, model)
    likelihood.train()
    result = fit_gpytorch_mll_scipy(likelihood, options={"maxiter": _MOST_STEPS})
    if result.status is OptimizationStatus.FAILURE and not math.isfinite(float(result.fval)):
        raise ModelFittingError(f"no hyperparameters explain the losses: {result.message}")
