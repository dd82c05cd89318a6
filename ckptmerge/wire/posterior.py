"""What a study's surrogate believes, as JSON."""

from typing import Literal

from ckptmerge.wire import examples
from ckptmerge.wire.resource import Resource, shown

Landmark = Literal["oldest", "newest", "incumbent", "uniform"]

_PREDICTION: examples.Example = {
    "weights": examples.TRIAL["weights"],
    "mean": 2.2641,
    "sd": 0.0003,
    "gain": 0.1148,
    "gain_sd": 0.0004,
}
_TRIAL: examples.Example = {"trial": 17, "name": None, "value": 2.2641, **_PREDICTION}
_POINT: examples.Example = {"at": 0.5625, **_PREDICTION}
_LINE: examples.Example = {"begin": "oldest", "end": "newest", "points": [_POINT]}
_POSTERIOR: examples.Example = {
    "study": examples.STUDY["id"],
    "observations": 24,
    "incumbent": 17,
    "expected_improvement": 0.00012,
    "floor": 0.0002,
    "trials": [_TRIAL],
    "line": _LINE,
    "candidates": [_PREDICTION],
}


class Prediction(Resource):
    """What is believed about one merge, in bits per byte on the documents of the search split."""

    model_config = shown(_PREDICTION)

    weights: list[float]
    """Oldest checkpoint first."""
    mean: float
    """Expected loss; lower is better."""
    sd: float
    """Its standard deviation: how little the surrogate knows."""
    gain: float
    """Expected loss of the newest checkpoint less that of this merge; positive is better."""
    gain_sd: float


class PredictedTrial(Prediction):
    """What is believed about a merge that was measured."""

    model_config = shown(_TRIAL)

    trial: int
    name: str | None
    """The baseline that it is; null for a candidate that was proposed."""
    value: float
    """What was measured."""


class PredictedPoint(Prediction):
    """What is believed about a point of a line."""

    model_config = shown(_POINT)

    at: float
    """How far along the line: 0 where it begins, 1 at its end; it may go on beyond both."""


class PredictedLine(Resource):
    """A straight line through the merge weights: the picture to draw."""

    model_config = shown(_LINE)

    begin: Landmark
    end: Landmark
    points: list[PredictedPoint]
    """Evenly spaced, 51 of them."""


class PosteriorResource(Resource):
    """What a study's surrogate believes about the loss.

    Everything is about the documents of the search split; what holds on documents that the search
    never saw, a certificate says and no surrogate.
    """

    model_config = shown(_POSTERIOR)

    study: str
    unit: Literal["bits_per_byte"] = "bits_per_byte"
    split: Literal["search"] = "search"
    against: Literal["newest"] = "newest"
    """What gains are over: the newest checkpoint of the window."""
    observations: int
    incumbent: int
    """Number of the trial whose expected loss is lowest."""
    expected_improvement: float
    """How much better than the incumbent the next candidate is expected to be."""
    floor: float | None
    """A search stops where less than this is expected: these documents could not tell it apart."""
    trials: list[PredictedTrial]
    """Those that were observed, in the order in which they were proposed."""
    line: PredictedLine
    candidates: list[Prediction]
    """Those that were asked for, in the order in which they were."""
