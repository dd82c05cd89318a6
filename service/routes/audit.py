"""The audit log: what was changed by whom, for admins."""

from typing import Annotated

from fastapi import APIRouter, Query

from ckptmerge.domain.token import Scope
from ckptmerge.storage.records import AuditRecord
from ckptmerge.storage.store import Snapshot
from ckptmerge.wire.tokens import AuditPage
from ckptmerge.workflow.audit_log import audit_entry
from service.dependencies import Service
from service.gate.auth import needs

router = APIRouter(prefix="/v1/audit", tags=["access"])


@router.get("", operation_id="list_audit", dependencies=[needs(Scope.ADMIN)])
async def list_audit(
    service: Service,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> AuditPage:
    """List what was changed by whom, oldest first; each entry is bound to the one before it."""

    def look(snapshot: Snapshot) -> AuditPage:
        found = snapshot.find(AuditRecord, after=after, limit=limit + 1)
        items = [audit_entry(record.entry) for record in found[:limit]]
        return AuditPage(items=items, next=found[limit - 1].id if len(found) > limit else None)

    return await service.read(look)
