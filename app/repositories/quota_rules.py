"""What a project's quotas refuse, over SQL and in memory alike."""

from app.core.entities.limits import ProjectLimits, ProjectUse
from app.core.errors import Forbidden

ONE_VERSION = ProjectUse(storage_bytes=1, versions=1)  # of a job to come, whose size nobody knows


def check_quotas(use: ProjectUse, limits: ProjectLimits, more: ProjectUse) -> None:
    for what, used, needed, allowed in (
        ("bytes of datasets and published versions", use.storage_bytes, more.storage_bytes, limits.storage_bytes),
        ("published versions", use.versions, more.versions, limits.versions),
    ):
        if allowed is not None and needed and used + needed > allowed:
            message = (
                f"this project has {used:,} of the {allowed:,} {what} that it may have, and this needs {needed:,} "
                "more: an operator of this service can raise that"
            )
            raise Forbidden(message, code="quota_exceeded")
