"""Every error that ckptmerge raises on purpose, in one tree.

    CkptmergeError
    ├── InvalidInputError                 what was handed in cannot be used
    │   ├── CheckpointFormatError         a file is not the safetensors model it should be
    │   │   ├── TruncatedFileError        bytes are missing, or there are too many
    │   │   └── NonFiniteTensorError      a tensor holds NaN or infinity
    │   ├── IncompatibleCheckpointsError  two checkpoints are not of one model
    │   ├── InvalidWeightsError           merge weights that cannot be merge weights
    │   ├── HeldOutSetError               the held-out documents cannot judge a model
    │   ├── TokenizerError                text cannot be turned into this model's tokens
    │   ├── DigestMismatchError           bytes are not what their digest says
    │   ├── TooLargeError                 more bytes came than were announced or allowed
    │   └── UploadLengthError             an append contradicts the length its upload was begun with
    ├── MissingError                      what was named is not there
    ├── RefusedError                      possible, but not done, for a stated reason
    │   ├── BarrierError                  they do not merge: a loss barrier lies between them
    │   ├── OutputExistsError             something already stands where the output should go
    │   ├── OutOfSpaceError               the disk cannot hold the output
    │   ├── StepExistsError               a run has other bytes at this step already
    │   ├── NameTakenError                a run or set of this name exists, and is another one
    │   ├── SourceRefusedError            the service may not read where it was pointed
    │   ├── LeaseLostError                the lease ran out and somebody else may hold the task
    │   ├── OutcomeConflictError          the task was finished with another outcome
    │   ├── UploadOffsetError             an append does not begin where its upload ends
    │   └── UploadCompletedError          an upload has all its bytes, and takes no more
    ├── ModelLoadError                    transformers cannot build the model from these files
    ├── NonFiniteLossError                a model scores NaN or infinity on a document
    ├── ProposerError                     the proposer process failed or died
    ├── DiskFailedError                   the disk failed to read or write
    ├── StoreUnavailableError             the database of the records does not answer
    │   └── StoreTakenError               another service works on it
    ├── ServiceError                      a service answered with a problem, or not at all
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


class DigestMismatchError(InvalidInputError):
    """Bytes are not what their digest says: damaged on the way, or named wrongly."""


class TooLargeError(InvalidInputError):
    """More bytes came than were announced or are allowed; none of them was kept."""


class UploadLengthError(InvalidInputError):
    """An append contradicts the length that its upload was begun with; nothing of it was kept."""


class MissingError(CkptmergeError):
    """What was named is not there."""


class RefusedError(CkptmergeError):
    """The request was understood and deliberately not carried out."""


class BarrierError(RefusedError):
    """The checkpoints do not merge: their midpoint is worse than both of them."""


class OutputExistsError(RefusedError):
    """Something already stands where the output should go; nothing was overwritten."""


class OutOfSpaceError(RefusedError):
    """The disk cannot hold the output; what had been written was removed."""


class StepExistsError(RefusedError):
    """The run has other bytes at this step already; nothing was replaced."""


class NameTakenError(RefusedError):
    """Something else goes by this name already; nothing was replaced."""


class SourceRefusedError(RefusedError):
    """The service may not read where it was pointed."""


class LeaseLostError(RefusedError):
    """The lease ran out, and somebody else may hold its task by now."""


class OutcomeConflictError(RefusedError):
    """The task was finished before, with another outcome; the first one stands."""


class UploadOffsetError(RefusedError):
    """An append does not begin where its upload ends; what the upload holds is untouched."""


class UploadCompletedError(RefusedError):
    """The upload has all its bytes, and its blob is there; it takes no more."""


class ModelLoadError(CkptmergeError):
    """Transformers could not build the model, or built one that scores differently."""


class NonFiniteLossError(CkptmergeError):
    """A model's loss on some document is NaN or infinite: no score, but a trial's reason to end."""


class ProposerError(CkptmergeError):
    """The proposer process answered with an error or died."""


class DiskFailedError(CkptmergeError):
    """The disk failed to read or write; nothing relies on what was being written."""


class StoreUnavailableError(CkptmergeError):
    """The database does not answer; what it has not acknowledged may be recorded, or not."""


class StoreTakenError(StoreUnavailableError):
    """Another service works on the database, and there is one at a time."""


class ServiceError(CkptmergeError):
    """A service answered with a problem, or could not be reached."""

    def __init__(self, message: str, *, status: int | None = None, kind: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status of the answer; None where there was none."""
        self.kind = kind
        """Last part of the problem's type, such as ``step-exists``."""


class IllegalTransitionError(CkptmergeError):
    """A study or trial was asked for a step that its state does not allow."""
