"""Each request that changes something, or would have, leaves an entry in the audit log once it is answered.

A view that wants a caller is entered by ``app.gateway.authentication``, a log-in by its own view. What ends before
that (no valid token, the rate limit, a body that is no JSON) has no actor and can change nothing.
"""

from datetime import UTC, datetime

from flask import Flask, Response, g, request

from app.core.entities.audit import AuditEntry
from app.core.entities.identity import Principal, Scope
from app.extensions import current_services
from app.gateway.access import scope_of
from app.gateway.request_ids import request_id

_CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_KINDS = {
    "train": "job",
    "evaluations": "job",
    "models": "model",
    "engines": "adapter",
    "auth": "session",
    "members": "member",
    "openai_jobs": "job",
    "openai_files": "dataset",
    "openai_models": "model",
}
_IDS = ("dataset_id", "task_id", "id", "username")  # of what a request made, in its answer


def enter(actor: Principal | str) -> None:
    """The caller of this request; a text is the account that somebody would log in to."""
    g.actor = actor


def init_audit(app: Flask) -> None:
    @app.after_request
    def keep(response: Response) -> Response:
        actor, is_replayed = g.get("actor"), "Idempotency-Replayed" in response.headers  # then it was done before
        changes = request.method in _CHANGING and scope_of(request.endpoint) is not Scope.INFER
        if actor is not None and changes and not is_replayed:
            current_services().audit.record(_entry(actor, response))
        return response


def _entry(actor: Principal | str, response: Response) -> AuditEntry:
    caller = actor if isinstance(actor, Principal) else None
    noun = (request.endpoint or "").partition(".")[0]
    return AuditEntry(
        project_id=caller.project_id if caller else None,
        created_at=datetime.now(UTC),
        actor=caller.username if caller else str(actor),
        user_id=caller.user_id if caller else None,
        key_id=caller.key_id if caller else None,
        address=request.remote_addr or "",
        action=request.endpoint or "",
        kind=_KINDS.get(noun, noun.removesuffix("s")),
        object_id=_object_id(response),
        status=response.status_code,
        request_id=request_id(),
    )


def _object_id(response: Response) -> str:
    """From the address; of something new, from the answer."""
    if request.view_args:
        return "/".join(map(str, request.view_args.values()))
    answer = response.get_json(silent=True) if response.status_code < 400 and not response.is_streamed else None
    return next((str(answer[name]) for name in _IDS if name in answer), "") if isinstance(answer, dict) else ""
