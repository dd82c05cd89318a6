"""The gate by itself, in a process that may take one gigabyte: ``python -m`` this, with folders."""

import json
import resource
import sys
import time
from pathlib import Path

from ckptmerge.errors import CheckpointFormatError
from ckptmerge.formats.manifest import read_manifest

ADDRESS_SPACE = 2**30


def main() -> None:
    """Read the manifest of every folder, and print what became of each as a line of JSON."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    for folder in sys.argv[1:]:
        begin = time.process_time()
        try:
            read_manifest(Path(folder))
            refused = False
        except CheckpointFormatError:
            refused = True
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        seconds = time.process_time() - begin
        sys.stdout.write(json.dumps({"refused": refused, "seconds": seconds, "peak": peak}) + "\n")


if __name__ == "__main__":
    main()
