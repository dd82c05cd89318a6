"""Every error that ckptmerge raises on purpose, in one tree.

    CkptmergeError
    ├── InvalidInputError                 what was handed in cannot be used
    │   ├── CheckpointFormatError         a file is not the safetensors model it should be
    │   │   ├── TruncatedFileError        bytes are missing, or there are too many
    │   │   └── NonFiniteTensorError      a tensor holds NaN or infinity
    │   ├── IncompatibleCheckpointsError  two checkpoints are not of one model
    │   ├── InvalidWeightsError           merge weights that cannot be merge weights
    │   ├── HeldOutSetError               the held-out documents cannot judge a model
    │   └── TokenizerError                text cannot be turned into this model's tokens
    ├── RefusedError                      possible, but not done, for a stated reason
    │   ├── BarrierError                  they do not merge: a loss barrier lies between them
    │   ├── OutputExistsError             something already stands where the output should go
    │   └── OutOfSpaceError               the disk cannot hold the output
    ├── ModelLoadError                    transformers cannot build the model from these files
    ├── NonFiniteLossError            a model scores NaN or infinity on a document
    ├── ProposerError                     the proposer process failed or died
    └── IllegalTransitionError            a study or trial was asked for a step out of order

A message says what happened, to what, and what to do next.
"""


class CkptmergeError(Exception):
    """Base of every error raised on purpose; catch this to catch them all."""


class InvalidInputError(CkptmergeError):
    """What was handed in cannot be used; the message says why and what would be."""


class CheckpointFormatError(InvalidInputError):
    """A file is not the safetensors file, or a folder not the model, it should be."""


class TruncatedFileError(CheckpointFormatError):
    """A file's size does not match its header: bytes are missing, or there are too many."""


class NonFiniteTensorError(CheckpointFormatError):
    """A floating-point tensor holds NaN or infinity; merging it would spread the damage."""


class IncompatibleCheckpointsError(InvalidInputError):
    """Two checkpoints differ in tensor names, shapes or dtypes: not one model."""


class InvalidWeightsError(InvalidInputError):
    """Merge weights are not finite, do not sum to one, or leave their search space."""


class HeldOutSetError(InvalidInputError):
    """The held-out documents are missing, malformed, or too few to judge a model."""


class TokenizerError(InvalidInputError):
    """Held-out text cannot be turned into tokens of this model."""


class RefusedError(CkptmergeError):
    """The request was understood and deliberately not carried out."""


class BarrierError(RefusedError):
    """The checkpoints do not merge: their midpoint is worse than both of them."""


class OutputExistsError(RefusedError):
    """Something already stands where the output should go; nothing was overwritten."""


class OutOfSpaceError(RefusedError):
    """The disk cannot hold the output; what had been written was removed."""


class ModelLoadError(CkptmergeError):
    """Transformers could not build the model, or built one that scores differently."""


class NonFiniteLossError(CkptmergeError):
    """A model's loss on some document is NaN or infinite: no score, but a trial's reason to end."""


class ProposerError(CkptmergeError):
    """The proposer process answered with an error or died."""


class IllegalTransitionError(CkptmergeError):
    """A study or trial was asked for a step that its state does not allow."""
