"""Retention of a run as JSON: what goes, what stays, and why."""

from typing import Literal

from ckptmerge.wire.resource import Resource, RunName, shown
from ckptmerge.wire.runs import RetentionSpec

_GOES = {
    "id": "c_01JZ",
    "kind": "checkpoint",
    "step": 1050,
    "bytes": 2200119864,
    "reason": "8 newer ones stay (keep_last), step not divisible by 1000 (keep_every)",
}

_STAYS = {
    "id": "a_01JZ",
    "kind": "merge",
    "step": 1600,
    "bytes": 2200119864,
    "reason": "the best of the run",
}


class RetentionItem(Resource):
    """A checkpoint or merge, and why its bytes go or stay."""

    model_config = shown(_GOES)

    id: str
    kind: Literal["checkpoint", "merge"]
    step: int
    """Of a merge: that of its newest parent."""
    bytes: int
    """Of all its files, also those that others share."""
    reason: str


class RetentionResource(Resource):
    """What a run's retention comes to; records, scores and recipes stay in any case."""

    model_config = shown(
        {
            "run": "olmo-1b",
            "policy": {
                "keep_last": 8,
                "keep_every": 1000,
                "keep_best": None,
                "ttl": None,
                "quota": None,
            },
            "applied": False,
            "goes": [_GOES],
            "stays": [_STAYS],
            "bytes": 2198119800,
            "grace": 86400.0,
        }
    )

    run: RunName
    policy: RetentionSpec
    applied: bool
    """Whether what goes has been given up; false of a dry run."""
    goes: list[RetentionItem]
    stays: list[RetentionItem]
    bytes: int
    """What the disk gets back: files that nothing else uses."""
    grace: float
    """Seconds that a file stays on the disk after it was last uploaded or registered."""
