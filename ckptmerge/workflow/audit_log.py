"""Put on record who has changed what, in the unit that changes it, and look whether it still is."""

from ckptmerge.domain.audit_log import Act, Actor, Entry, first_break
from ckptmerge.storage.records import AuditRecord
from ckptmerge.storage.store import Snapshot, Unit
from ckptmerge.wire.tokens import AuditEntry
from ckptmerge.workflow.answers import timestamp
from ckptmerge.workflow.stored import every


def record_act(
    unit: Unit, actor: Actor, action: str, what: str, *, now: float, **detail: object
) -> Entry:
    """Add an act to the audit log; call it in the unit that carries the act out.

    Args:
        unit: What changes.
        actor: Who asked for it.
        action: In the words of the interface, such as ``change-run``.
        what: What is changed, by its address beneath ``/v1``.
        now: Seconds since 1970.
        detail: How it is changed, as JSON; no secret.
    """
    last = unit.find(AuditRecord, newest_first=True, limit=1)
    act = Act(actor=actor, action=action, object=what, detail=detail, at=now)
    entry = Entry.after(last[0].entry if last else None, act)
    unit.insert(AuditRecord(id=str(entry.number), entry=entry))
    return entry


def broken_at(snapshot: Snapshot) -> int | None:
    """Return the number of the first entry that is not as it was written; None where all are."""
    return first_break(record.entry for record in every(snapshot, AuditRecord))


def audit_entry(entry: Entry) -> AuditEntry:
    """Describe an entry of the audit log."""
    act = entry.act
    return AuditEntry(
        number=entry.number,
        at=timestamp(act.at),
        who=act.actor.who,
        request=act.actor.request,
        action=act.action,
        object=act.object,
        detail=dict(act.detail),
        previous=str(entry.previous),
        digest=str(entry.digest),
    )
