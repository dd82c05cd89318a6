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
from jaxtyping import Float64
from torch import Tensor

from ckptmerge.proposal.ascent import ascend
from ckptmerge.proposal.geometry import Geometry
from ckptmerge.proposal.surrogate import Surrogate

_STEPS = 40
"""Evaluations that each resample's minimum may take."""


def statistical_floor(
    surrogate: Surrogate,
    *,
    region: Geometry,
    losses: Float64[Tensor, " n"],
    replicates: Float64[Tensor, "n r"],
    starts: Float64[Tensor, "s k"],
) -> float:
    """Return the expected excess loss, on fresh documents, of the optimum on these.

    Args:
        surrogate: Of the loss.
        region: Where the surrogate is trusted, and so where the minima are looked for.
        losses: Of the observations, in the surrogate's order.
        replicates: The same on resamples of the documents; r may be 0, which gives a floor of 0.
        starts: Weights of the region among which the minima are first looked for.
    """
    if replicates.shape[1] == 0:
        return 0.0
    changes = replicates - losses.unsqueeze(-1)
    # A shift common to all observations moves no optimum; left in, the model would take it back
    # far from the observations, and so bend the surface.
    surfaces = surrogate.surfaces(changes - changes.mean(dim=0))

    def heights(points: Tensor) -> Tensor:
        """Return each row's height on its own surface."""
        return (surrogate.covariances(points) * surfaces).sum(-1)

    with torch.no_grad():
        first = starts[(surrogate.covariances(starts) @ surfaces.T).argmax(dim=0)]
    optima, _ = ascend(heights, first, region.project, steps=_STEPS)
    with torch.no_grad():
        # Row 0 is the surface of all documents; on it the resamples' optima are judged.
        judged = surrogate.covariances(optima) @ surfaces[0]
    return float((judged[0] - judged[1:]).clamp(min=0).mean()) * surrogate.scale


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
