"""Worked examples of every resource, all of one story, for the interface's documentation.

The run ``olmo-1b`` has been judged at step 1600: a merge of its last two checkpoints beat the newer
one by 0.115 bits per byte, and is its best.
"""

from typing import Any

Example = dict[str, Any]

_RUN = "olmo-1b"
_OLDER, _NEWER = "c_01KWERSRG09CHHM2XXBYJV1DYJ", "c_01KWESC2E0AETY51TYGTZTXYMA"
_STUDY, _ARTIFACT = "s_01KWESYCC075PP2EHD20S2EG3R", "a_01KWETGPA0NZQXTD3TWC47PES8"
_LEASE = "t_01KWEV3080DC39WDAZ6DYQDC32"
_WEIGHTS = "model.safetensors"
_SIZE = 2_353_960_720
_WEIGHTS_DIGEST = "sha256:b2116fb3584d45afa8323a8cd080c4118ac13713e6640b76d81e4a4428543d0e"
_MERGED_DIGEST = "sha256:53bbe4c5776cc5bb13da9198901ca6383920fed28823bbdc82b6cb0e560a865c"
_MERGE = "sha256:3f8f09c8e09f712b362183db69f4f061bd948d7a61e7663b585d723602c559b1"
_CONFIG_DIGEST = "sha256:b79606fb3afea5bd1609ed40b622142f1c98125abcfe89a76a661b0e8e343910"
_HELD_OUT = "sha256:df16c1c51be8437dd9b3608a3acac00ab25f1395a91265780f3793926b9c47fe"
_HELD_OUT_FILE = "sha256:848557fc1c03b2877cc08205c08a0867256e83ef35fa7057517c207170ce4626"
_OLDER_DIGEST = "sha256:25e2b6b106523880e27763084ffa6a0756335be0d7106022535365b9ad39b4b1"
_SCORES = "sha256:a6235752ef51e86cdf1d56634948c32f75fe6a492e212797315ea43f5ecfa66e"
_OLDER_CONTENT = "sha256:6ca173ece96ce30d0c09133ef579d017b0fa6b1b6638c6b0f04171395a1cabed"
_NEWER_CONTENT = "sha256:c66f8528fda8f4803d51fa9feea6e1a1dcdfb45d83ece4eb0878f207876711d9"

FILE_REF: Example = {"name": _WEIGHTS, "size": _SIZE, "digest": _WEIGHTS_DIGEST}

FILE: Example = {**FILE_REF, "href": f"/v1/checkpoints/{_NEWER}/files/{_WEIGHTS}"}

STUDY_SPEC: Example = {"space": "simplex", "budget": 24, "seed": 0, "dtype": "bf16"}

WINDOW: Example = {"size": 2, "every": 1, "minimum": 2}

NEW_RUN: Example = {
    "name": _RUN,
    "held_out": "web-and-code",
    "study": STUDY_SPEC,
    "window": WINDOW,
}

RUN: Example = {
    "name": _RUN,
    "held_out": "web-and-code",
    "held_out_digest": _HELD_OUT,
    "era": 1,
    "attempt": 1,
    "checkpoints": 2,
    "study": STUDY_SPEC,
    "window": WINDOW,
    "files": {"config.json": _CONFIG_DIGEST},
    "created": "2026-07-01T10:00:00.000Z",
}

RUNS: Example = {"items": [RUN], "next": None}

HELD_OUT_SET: Example = {
    "name": "web-and-code",
    "digest": _HELD_OUT,
    "file": _HELD_OUT_FILE,
    "documents": 1438,
    "splits": {
        "search": {
            "web": {"documents": 380, "units": 380},
            "code": {"documents": 340, "units": 96},
        },
        "certify": {
            "web": {"documents": 188, "units": 188},
            "code": {"documents": 170, "units": 47},
        },
        "audit": {"web": {"documents": 190, "units": 190}, "code": {"documents": 170, "units": 49}},
    },
}

NEW_CHECKPOINT: Example = {"step": 1600, "tokens": 3_276_800_000, "files": [FILE_REF]}

NEW_CHECKPOINT_FROM_SOURCE: Example = {"step": 1600, "source": "/runs/olmo-1b/step-1600"}

CHECKPOINT: Example = {
    "id": _NEWER,
    "run": _RUN,
    "attempt": 1,
    "step": 1600,
    "tokens": 3_276_800_000,
    "digest": "sha256:13e843aaf3c0e5bda67ce1bc1852ca345e88fdcc9dd026ade149db43e1775edc",
    "content": _NEWER_CONTENT,
    "state": "complete",
    "missing": [],
    "parameters": 1_176_980_352,
    "bytes": _SIZE,
    "created": "2026-07-01T12:10:00.000Z",
    "files": [FILE],
}

CHECKPOINTS: Example = {"items": [CHECKPOINT], "next": None}


def _interval(mean: float, half: float, *, split: str, documents: int) -> Example:
    """Write a number of one domain with its interval, as scores and gains have it."""
    bounds = {"mean": mean, "low": round(mean - half, 4), "high": round(mean + half, 4)}
    return {
        **bounds,
        "level": 0.95,
        "unit": "bits_per_byte",
        "split": split,
        "documents": documents,
        "domains": {"web": {**bounds, "documents": documents, "too_few": False}},
    }


SCORE: Example = _interval(2.2654, 0.055, split="audit", documents=360)

GAIN: Example = {
    **_interval(0.115, 0.006, split="audit", documents=360),
    "against": "newest",
    "p": 1e-09,
}

CERTIFICATE: Example = {
    "subject": "candidate",
    "passed": True,
    "alpha": 0.0304,
    "test": 1,
    "p": 1e-09,
    "split": "certify",
    "documents": 358,
    "units": 235,
    "held_out": _HELD_OUT,
    "artifact": _MERGE,
    "gains": [{**GAIN, "split": "certify", "documents": 358}],
    "worse_domains": [],
}

PASSES: Example = {"search": 24, "certify": 3, "audit": 3}

_BASELINES: Example = {
    "newest": _interval(2.3804, 0.056, split="audit", documents=360),
    "uniform-2": _interval(2.2712, 0.055, split="audit", documents=360),
}

BEST: Example = {
    "run": _RUN,
    "kind": "merge",
    "promoted": True,
    "reason": "beats newest and best parent at alpha 0.0304",
    "artifact": _ARTIFACT,
    "digest": _MERGE,
    "step": 1600,
    "tokens": 3_276_800_000,
    "study": _STUDY,
    "stopped": "the budget of 24 evaluations is spent",
    "weights": [
        {"checkpoint": _OLDER, "attempt": 1, "step": 1550, "weight": 0.4375},
        {"checkpoint": _NEWER, "attempt": 1, "step": 1600, "weight": 0.5625},
    ],
    "groups": None,
    "score": SCORE,
    "baselines": _BASELINES,
    "gains": [GAIN],
    "better_than_uniform": None,
    "certificate": CERTIFICATE,
    "tests": [CERTIFICATE],
    "passes": PASSES,
    "files": [
        {
            "name": _WEIGHTS,
            "size": _SIZE,
            "digest": _MERGED_DIGEST,
            "href": f"/v1/artifacts/{_ARTIFACT}/files/{_WEIGHTS}",
        }
    ],
}

STUDY: Example = {
    "id": _STUDY,
    "run": _RUN,
    "era": 1,
    "state": "decided",
    "stopped": "the budget of 24 evaluations is spent",
    "checkpoints": [_OLDER, _NEWER],
    "steps": [1550, 1600],
    "space": "simplex",
    "lower": [0.0, 0.0],
    "upper": [1.0, 1.0],
    "budget": 24,
    "seed": 0,
    "dtype": "bf16",
    "trials": 24,
    "observed": 24,
    "winner": 17,
    "verdict": {
        "promoted": True,
        "artifact": _ARTIFACT,
        "reason": "beats newest and best parent at alpha 0.0304",
        "tests": [CERTIFICATE],
        "score": SCORE,
        "baselines": _BASELINES,
        "gains": [GAIN],
        "better_than_uniform": None,
        "passes": PASSES,
    },
    "created": "2026-07-01T12:20:00.000Z",
}

STUDIES: Example = {"items": [STUDY], "next": None}

STUDY_CHANGE: Example = {"state": "cancelled"}

TRIAL: Example = {
    "trial": 17,
    "name": None,
    "weights": [0.4375, 0.5625],
    "state": "observed",
    "value": 2.2641,
    "standard_error": 0.0002,
    "reason": None,
    "code": None,
    "log": None,
    "worker": "gpu-3/cuda:0",
    "attempts": 1,
    "reused": False,
    "seconds": {"load": 0.0, "swap": 0.4, "score": 9.8},
}

TRIALS: Example = {"items": [TRIAL], "next": None}

LEASE_REQUEST: Example = {
    "worker": "gpu-3/cuda:0",
    "device": "cuda:0",
    "kinds": ["evaluate", "materialise", "certify"],
    "wait": 20.0,
}

LEASE: Example = {
    "id": _LEASE,
    "fence": 1,
    "expires_in": 60.0,
    "kind": "evaluate",
    "study": _STUDY,
    "trial": 17,
    "checkpoints": [
        {
            "id": key,
            "weight_index": index,
            "step": step,
            "content": content,
            "files": [{**FILE_REF, "digest": digest, "href": f"/v1/blobs/{digest}"}],
        }
        for index, (key, step, content, digest) in enumerate(
            (
                (_OLDER, 1550, _OLDER_CONTENT, _OLDER_DIGEST),
                (_NEWER, 1600, _NEWER_CONTENT, _WEIGHTS_DIGEST),
            )
        )
    ],
    "weights": [0.4375, 0.5625],
    "dtype": "bf16",
    "context": 2048,
    "held_out": {
        "digest": _HELD_OUT,
        "split": "search",
        "file": {
            "name": "held-out.jsonl",
            "size": 5_120_344,
            "digest": _HELD_OUT_FILE,
            "href": f"/v1/blobs/{_HELD_OUT_FILE}",
        },
    },
    "repeat": False,
}

RENEWAL: Example = {"fence": 1}

RENEWED: Example = {"expires_in": 60.0, "directive": "continue"}

OUTCOME: Example = {
    "fence": 1,
    "status": "ok",
    "scores": _SCORES,
    "seconds": {"load": 0.0, "swap": 0.4, "score": 9.8},
    "bytes_written": 0,
}

RECIPE: Example = {
    "arithmetic": "1",
    "method": "linear",
    "parents": [_OLDER_CONTENT, _NEWER_CONTENT],
    "weights": [0.4375, 0.5625],
    "dtype": "bf16",
    "shard_size": 5_000_000_000,
}

EVENT: Example = {
    "id": "v_01KWEV3080DC39WDAZ6DYQDC32",
    "run": _RUN,
    "kind": "best-promoted",
    "data": {"study": _STUDY, "artifact": _ARTIFACT},
    "at": "2026-07-01T13:00:00.000Z",
}
