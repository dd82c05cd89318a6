"""Making a certificate: one test of one model on documents that the search never saw."""

from collections.abc import Mapping

from ckptmerge.domain.baselines import NEWEST
from ckptmerge.domain.certificate import Certificate, alpha
from ckptmerge.domain.digest import Digest
from ckptmerge.domain.observation import Objective, Split
from ckptmerge.errors import InvalidInputError
from ckptmerge.evaluation.paired import domain_weights, domains_not_kept, gain
from ckptmerge.evaluation.scores import DocumentScores


def certify(
    subject: DocumentScores,
    against: Mapping[str, DocumentScores],
    *,
    name: str,
    objective: Objective,
    test: int,
    held_out: Digest,
    artifact: Digest | None,
    newest: str = NEWEST,
    seed: int,
) -> Certificate:
    """Test on the certify split whether ``subject`` is better than every model of ``against``.

    All must hold at the level of this test, so no correction for their number is needed
    (intersection-union test: Berger, Technometrics 24, 1982). Limits on domains are tested
    against ``newest``, unless the subject itself is the newest checkpoint.

    Args:
        subject: scores of the very bytes that would be promoted.
        against: scores of its rivals on the same documents, by name.
        name: what the subject is called.
        objective: domain weights, and limits on domains.
        test: number of the test within the run's era, from 1.
        held_out: digest of the held-out set that the documents were split from.
        artifact: digest of the bytes, or None for a checkpoint.
        newest: which name stands for the newest checkpoint.
        seed: of the bootstrap.

    Raises:
        HeldOutSetError: the models were not scored on the same documents, or the objective names
            a domain that no document is of.
        InvalidInputError: there is no rival, a domain has a limit and the newest checkpoint is
            not among the rivals, or a loss is not finite.
    """
    if not against:
        raise InvalidInputError(f"{name} is tested against nothing; name at least one rival")
    if objective.limits and newest not in {name, *against}:
        raise InvalidInputError(
            f"domain limits are kept against the newest checkpoint, but {newest!r} is not among "
            f"the rivals {sorted(against)}; score it on the same documents"
        )
    limited = bool(objective.limits) and name != newest
    weights = domain_weights(subject, objective)
    labels = zip(subject.domains, subject.units, strict=True)
    return Certificate(
        subject=name,
        test=test,
        gains=tuple(
            gain(
                subject,
                rival,
                name=rival_name,
                objective=objective,
                split=Split.CERTIFY,
                seed=seed,
            )
            for rival_name, rival in against.items()
        ),
        worse_domains=domains_not_kept(
            subject, against[newest], objective=objective, alpha=alpha(test), seed=seed
        )
        if limited
        else (),
        held_out=held_out,
        documents=len(subject),
        # Units of domains that weigh nothing bear no evidence.
        units=len({(domain, unit) for domain, unit in labels if weights[domain] > 0}),
        artifact=artifact,
    )
