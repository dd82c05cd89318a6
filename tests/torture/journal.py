"""What a client was told, written where the torture of the service cannot reach it."""

import json
import os
from pathlib import Path
from typing import Any


class Journal:
    """Facts that the service has acknowledged, one a line, in the order of their answers."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def say(self, **fact: object) -> None:
        """Write down what was acknowledged; one line is written whole or not at all."""
        line = (json.dumps(fact) + "\n").encode()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    def facts(self) -> list[dict[str, Any]]:
        """Return what has been acknowledged so far."""
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text().splitlines()]
