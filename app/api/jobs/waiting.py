"""The answer to a request whose job takes longer than its client waits."""

from flask import Response, jsonify, url_for

from app.api.jobs.schemas import AnyJobSchema
from app.core.entities.jobs import FineTuningJob

TAKES_LONGER = "It takes longer: `Location` is its job's address."


def accepted(job: FineTuningJob) -> Response:
    """Answer 202 with the job, and its address in ``Location``."""
    response: Response = jsonify(AnyJobSchema().dump(job))
    response.status_code = 202
    response.headers["Location"] = url_for("jobs.show", job_id=job.id)
    return response
