"""Bodies, queries and headers of jobs of every kind."""

import re
from typing import Any

import marshmallow as ma

from app.api.schemas import Body, integer, page_after, page_size, text
from app.core.entities.jobs import DEFAULT_QUEUE, PRIORITIES, JobState
from app.gateway.openapi import FaultSchema

LARGEST = 2**31 - 1  # number of an event
LONGEST_WAIT = 30  # seconds that a request may wait for its job
USUAL_WAIT = 10
_WAIT = re.compile(r"\s*wait\s*=\s*\"?(\d{1,9})\"?\s*", re.IGNORECASE)


class JobQuerySchema(ma.Schema):
    status = ma.fields.Enum(
        JobState,
        by_value=True,
        attribute="state",
        load_default=None,
        metadata={"description": "only jobs in this state; without it, all"},
    )
    limit = page_size()
    after = page_after()


def priority() -> ma.fields.Integer:
    """Make the field ``priority`` of a request for a job."""
    return integer(PRIORITIES[0], PRIORITIES[-1], "among the project's jobs: the higher, the sooner", 0)


def queue() -> ma.fields.String:
    """Make the field ``queue`` of a request for a job."""
    about = "one of the service's queues: the workers that serve it may take the job"
    return text(32, about, load_default=DEFAULT_QUEUE)


def after_jobs() -> ma.fields.List[str]:
    """Make the field ``after`` of a request for a job."""
    return ma.fields.List(
        ma.fields.String(validate=ma.validate.Length(1, 64)),
        load_default=list,
        validate=ma.validate.Length(0, 10),
        metadata={"description": "ids of jobs that must succeed before this one runs"},
    )


class AnyJobQuerySchema(JobQuerySchema):
    kind = text(32, "only jobs of this kind: `train`, `estimate`, `process` …", "process", load_default=None)


class JobErrorSchema(ma.Schema):
    code = ma.fields.String(metadata={"example": "invalid_data"})
    message = ma.fields.String()
    errors = ma.fields.List(ma.fields.Nested(FaultSchema), attribute="faults")


class AnyJobSchema(ma.Schema):
    id = ma.fields.String(metadata={"example": "process-0123456789abcdef01234567"})
    kind = ma.fields.String(metadata={"example": "process"})
    status = ma.fields.Enum(JobState, by_value=True, attribute="state")
    name = ma.fields.String(metadata={"description": "what it works on, or what its request calls it"})
    base_model = ma.fields.String(metadata={"description": "empty where its kind works with none"})
    dataset_id = ma.fields.String(allow_none=True)
    dataset_number = ma.fields.Integer(allow_none=True, metadata={"description": "the version that it reads"})
    config = ma.fields.Dict(metadata={"description": "its whole request, with the defaults that were filled in"})
    after = ma.fields.List(ma.fields.String(), metadata={"description": "jobs that must succeed before it runs"})
    step = ma.fields.Integer(attribute="progress.step", metadata={"description": "what is done of `total_steps`"})
    total_steps = ma.fields.Integer(attribute="progress.total_steps", allow_none=True)
    result = ma.fields.Dict(metadata={"description": "what it came to; empty until it has succeeded"})
    made = ma.fields.List(
        ma.fields.String(),
        metadata={"description": "references of the versions that it published", "example": ["ds-0123:2"]},
    )
    error = ma.fields.Nested(
        JobErrorSchema, allow_none=True, metadata={"description": "why it failed, with every fault"}
    )
    cancel_requested = ma.fields.Boolean()
    attempts = ma.fields.Integer(metadata={"description": "how often a worker began to run it"})
    lost = ma.fields.Integer(metadata={"description": "how often its worker or its child process was lost"})
    priority = ma.fields.Integer()
    queue = ma.fields.String()
    retry_of = ma.fields.String(allow_none=True, metadata={"description": "the job that this one tries again"})
    created_by = ma.fields.String(allow_none=True)
    created_at = ma.fields.AwareDateTime()
    started_at = ma.fields.AwareDateTime(allow_none=True)
    finished_at = ma.fields.AwareDateTime(allow_none=True)


class AnyJobListSchema(ma.Schema):
    data = ma.fields.List(ma.fields.Nested(AnyJobSchema), attribute="jobs")
    next = ma.fields.String(allow_none=True, metadata={"description": "null on the last page"})


class ChainStepSchema(Body):
    name = ma.fields.String(
        required=True,
        validate=ma.validate.Regexp(r"^[A-Za-z][A-Za-z0-9_-]{0,31}\Z"),
        metadata={"description": "by which later steps name it", "example": "clean"},
    )
    kind = ma.fields.String(required=True, validate=ma.validate.Length(1, 32), metadata={"example": "process"})
    request = ma.fields.Dict(
        keys=ma.fields.String(),
        required=True,
        metadata={
            "description": "what the kind's own route takes, flat; a value `$name` is what that step makes: a "
            "dataset version, or a model version"
        },
    )
    after = ma.fields.List(
        ma.fields.String(validate=ma.validate.Length(1, 32)),
        load_default=list,
        validate=ma.validate.Length(0, 10),
        metadata={"description": "steps to wait for beside those that the request names"},
    )


class ChainSchema(Body):
    jobs = ma.fields.List(ma.fields.Nested(ChainStepSchema), required=True, validate=ma.validate.Length(1, 10))
    priority = priority()
    queue = queue()


class ChainJobsSchema(ma.Schema):
    data = ma.fields.List(ma.fields.Nested(AnyJobSchema))


class WaitField(ma.fields.String):
    """The preference ``wait`` of RFC 7240 among others, in seconds."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        found = next(filter(None, map(_WAIT.fullmatch, text.split(","))), None)
        return USUAL_WAIT if found is None else min(LONGEST_WAIT, int(found[1]))


class PreferSchema(ma.Schema):
    wait = WaitField(
        data_key="Prefer",
        load_default=USUAL_WAIT,
        metadata={
            "description": f"`wait=N`: answer within N seconds, {LONGEST_WAIT} at most, else with 202; without it "
            f"{USUAL_WAIT}",
            "example": "wait=20",
        },
    )


class EventQuerySchema(ma.Schema):
    after = ma.fields.Integer(
        load_default=0,
        validate=ma.validate.Range(0, LARGEST),
        metadata={"description": "the last `seq` seen"},
    )
    limit = ma.fields.Integer(
        load_default=100, validate=ma.validate.Range(1, 1000), metadata={"description": "events, at most"}
    )


class StreamQuerySchema(ma.Schema):
    after = EventQuerySchema._declared_fields["after"]


class ResumeSchema(ma.Schema):
    after = ma.fields.Integer(
        data_key="Last-Event-ID",
        load_default=None,
        validate=ma.validate.Range(0, LARGEST),
        metadata={"description": "the last `id` seen; it stands above `after`"},
    )


class EventSchema(ma.Schema):
    seq = ma.fields.Integer(metadata={"description": "send the last one as `after` to go on from there"})
    type = ma.fields.String(metadata={"enum": ["message", "metrics"]})
    level = ma.fields.String(metadata={"enum": ["info", "warn", "error"]})
    message = ma.fields.String()
    created_at = ma.fields.AwareDateTime()
    data = ma.fields.Dict()


class EventListSchema(ma.Schema):
    data = ma.fields.List(ma.fields.Nested(EventSchema))
