"""When to stop: the statistical floor below which a better candidate is a better fit to noise.

Documents are a sample. The optimum on n of them is, on fresh documents, expected to be worse than
the true optimum by

    tr(J⁻¹ I) / (2 n)        (J: Hessian of the loss, I: covariance of the documents' gradients;
                              Takeuchi 1976; in one dimension V / (4 a n) with loss a (λ - λ*)²)

Here that number comes from the bootstrap of the optimum, so it also holds where bounds are active:
the posterior mean is linear in the observed losses, so each resample of the documents has its own
surface at no further measurement; the floor is how much worse the resamples' minima are, on
average, on the surface of all documents. Resamples differ from the documents at hand as those
differ from the world, so no factor is needed.
"""

import torch
from botorch.models import SingleTaskGP
from jaxtyping import Float64
from torch import Tensor

from ckptmerge.proposal.ascent import ascend
from ckptmerge.proposal.geometry import Geometry

_STEPS = 40
"""Evaluations that each resample's minimum may take."""


def statistical_floor(
    model: SingleTaskGP,
    geometry: Geometry,
    losses: Float64[Tensor, " n"],
    replicates: Float64[Tensor, "n r"],
    starts: Float64[Tensor, "s k"],
) -> float:
    """Return the expected excess loss, on fresh documents, of the optimum on these.

    Args:
        model: Posterior of the negated losses.
        geometry: Of the search space.
        losses: Of the observations, in the model's order.
        replicates: The same on resamples of the documents; r may be 0, which gives a floor of 0.
        starts: Legal weights among which the minima are first looked for.
    """
    if replicates.shape[1] == 0:
        return 0.0
    surfaces = _surfaces(model, losses, replicates)
    inputs = _training_inputs(model)

    def heights(points: Tensor) -> Tensor:
        """Return each row's height on its own surface, in deviations of the losses."""
        return (_covariance(model, geometry.coordinates(points), inputs) * surfaces).sum(-1)

    with torch.no_grad():
        cloud = _covariance(model, geometry.coordinates(starts), inputs)
        first = starts[(cloud @ surfaces.T).argmax(dim=0)]
    optima, _ = ascend(heights, first, geometry.project, steps=_STEPS)
    with torch.no_grad():
        # Row 0 is the surface of all documents; on it the other rows' optima are judged.
        judged = _covariance(model, geometry.coordinates(optima), inputs) @ surfaces[0]
    excess = (judged[0] - judged[1:]).clamp(min=0)
    return float(excess.mean() * losses.std())


def reason_to_stop(
    *, expected_improvement: float, floor: float, observations: int, dimension: int
) -> str | None:
    """Say why the search should end, or return None.

    A model has seen nothing of the loss's shape before it has more observations than the space has
    dimensions, so it is not believed before.
    """
    if observations < dimension + 3 or expected_improvement >= floor:
        return None
    return (
        f"the best candidate is expected to gain {expected_improvement:.2g} bits per byte, less "
        f"than the {floor:.2g} that these documents can tell apart"
    )


def _surfaces(
    model: SingleTaskGP, losses: Float64[Tensor, " n"], replicates: Float64[Tensor, "n r"]
) -> Float64[Tensor, "r+1 n"]:
    """Return the weights of the covariances in each surface: of all documents, then resamples.

    A shift that is common to all observations moves no optimum and is taken out, since the model
    would take it back to zero far from the observations and so bend the surface.
    """
    inputs = _training_inputs(model)
    with torch.no_grad():
        noisy = model.likelihood(model.forward(inputs)).covariance_matrix
        factor = torch.linalg.cholesky(noisy)
        residuals = model.train_targets - model.mean_module(inputs)
        changes = replicates - losses.unsqueeze(-1)
        changes = (changes.mean(dim=0) - changes) / losses.std()
        right = residuals.unsqueeze(-1) + torch.cat([torch.zeros_like(changes[:, :1]), changes], 1)
        return torch.cholesky_solve(right, factor).T


def _training_inputs(model: SingleTaskGP) -> Float64[Tensor, "n d"]:
    """Return the coordinates of the observations."""
    (inputs,) = model.train_inputs
    return inputs


def _covariance(
    model: SingleTaskGP, points: Float64[Tensor, "m d"], inputs: Float64[Tensor, "n d"]
) -> Float64[Tensor, "m n"]:
    """Return the prior covariances of points and observations."""
    return model.covar_module(points, inputs).to_dense()
