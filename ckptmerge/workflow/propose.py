"""The proposer's process: requests come in on stdin, answers go out on stdout, a line each.

Run as ``python -m ckptmerge.workflow.propose`` by `ckptmerge.workflow.proposer_process`, so that a
process that must answer quickly never loads torch and never waits for a fit. A line that is no
request is answered with an error; an error nobody foresaw ends the process with its traceback on
stderr, where the asking side finds it.
"""

import json
import os
import sys
from collections.abc import Iterable
from typing import TextIO

from ckptmerge.errors import InvalidInputError, RefusedError
from ckptmerge.proposal.bayesian import propose
from ckptmerge.proposal.belief import asks_for_posterior, posterior_request_from_fields
from ckptmerge.proposal.lines import parsed
from ckptmerge.proposal.posterior import posterior
from ckptmerge.proposal.request import request_from_fields


def answer(line: str) -> str:
    """Return the line that answers a request: a proposal, or a posterior where one is asked for.

    ``{"error": …}`` answers what is no request, ``{"refused": …}`` one that cannot be answered yet.
    """
    try:
        asked = parsed(line)
        if asks_for_posterior(asked):
            return posterior(posterior_request_from_fields(asked)).as_json()
        return propose(request_from_fields(asked)).as_json()
    except InvalidInputError as error:
        return json.dumps({"error": str(error)})
    except RefusedError as error:
        return json.dumps({"refused": str(error)})


def serve(requests: Iterable[str], answers: TextIO) -> None:
    """Answer each request in order, until there are no more."""
    for line in requests:
        answers.write(answer(line) + "\n")
        answers.flush()


def main() -> None:
    """Serve stdin on stdout, and send whatever else is printed to stderr."""
    # A library's stray print between two answers would be read as an answer.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
