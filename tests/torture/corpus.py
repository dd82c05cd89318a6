"""The corpus of hostile files, made by script: nothing of it is kept anywhere."""

from tests.torture.hostile_file import Hostile
from tests.torture.hostile_texts import texts
from tests.torture.hostile_weights import weight_files


def corpus() -> list[Hostile]:
    """Return every file of the corpus, the legal ones that look hostile included."""
    return [*weight_files(), *texts()]
