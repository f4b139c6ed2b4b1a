"""Every code that an error of this service can have: the one list, and the page that is made of it.

What is missing here, or is here and raised nowhere, fails tests/unit/gateway/test_error_codes.py. After a change:
``python -m app.gateway.error_codes > docs/errors.md``.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass

PAGE = "/docs/errors"
INTRODUCTION = (
    "Under /api/v1 an error is application/problem+json (RFC 9457): code is stable and for programs, type is the "
    "address of its entry here, detail says what was wrong with this request, errors lists every fault at once, "
    "and request_id is what the log has too. Under /v1 the same codes come in OpenAI's envelope, and what is 422 "
    "elsewhere is 400 there. A job that failed has a code from this list in its error."
)


@dataclass(frozen=True, slots=True)
class ErrorCode:
    title: str
    advice: str
    statuses: tuple[int, ...]  # none: only jobs and commands end with it

    @property
    def answered(self) -> str:
        return ", ".join(map(str, self.statuses)) or "none: a job or a command ends with it"


def _of(title: str, advice: str, *statuses: int) -> ErrorCode:
    return ErrorCode(title, advice, statuses)


_DATA = "Mend what errors lists, each with its row and field."
_LATER = "Ask again after Retry-After seconds."
_OPERATOR = "Tell the operator of the service, with the request id: the log has more."
_LOOK = "Look at the name or id: what belongs to another project is not found either."

CODES: Mapping[str, ErrorCode] = {
    # The request itself
    "bad_request": _of("Not a sound request", "Send a request as HTTP has it.", 400),
    "untrusted_host": _of(
        "Not a name of this service", "Use a name that the operator has listed in TRUSTED_HOSTS.", 400
    ),
    "duplicate_key": _of("A key is given twice", "Give each key of the JSON once.", 400),
    "invalid_text": _of(
        "A text that cannot be kept", "Send UTF-8 without NUL and without half a surrogate pair.", 400, 422
    ),
    "json_too_deep": _of("The JSON is nested too deep", "Nest lists and objects 32 deep at most.", 400),
    "malformed_json": _of("Not JSON", "Send one JSON value in UTF-8; detail names line and column.", 400),
    "method_not_allowed": _of("Not a method of this address", "The header Allow lists the methods.", 405),
    "not_found": _of("Nothing is there", "Look at the address: /docs lists what there is.", 404),
    "request_timeout": _of("The request came too slowly", "Send it again.", 408),
    "body_too_large": _of("The body is too large", "Send less: a long file in parts, or as a dataset.", 413),
    "unsupported_media_type": _of("Not a type that is read here", "Send Content-Type: application/json.", 415),
    "range_not_satisfiable": _of("No such range", "Ask for a range within the file.", 416),
    "invalid_request": _of("The request has faults", "Mend what errors lists: all faults are there.", 422),
    "conflict": _of("It has moved on meanwhile", "Read the thing again, then decide.", 409),
    "stale_attempt": _of("An attempt that is over", "Nothing: another attempt owns the job.", 409),
    "invalid_idempotency_key": _of(
        "No Idempotency-Key to take", "Send 1 to 255 visible ASCII characters, such as a UUID.", 422
    ),
    "idempotency_key_reused": _of(
        "The Idempotency-Key came with another body", "Take a new key for another request.", 422
    ),
    "idempotency_in_progress": _of(
        "The same request is at work", "Send it again after Retry-After seconds: the answer will be there.", 409
    ),
    "idempotency_secret_shown": _of(
        "It was made, and its secret was shown",
        "Revoke what was made if its secret is lost, and make another.",
        409,
    ),
    "too_many_requests": _of("Too many requests", _LATER, 429),
    "rate_limited": _of("The rate limit is reached", _LATER, 429),
    "tokens_used_up": _of("The tokens of this minute are used up", _LATER, 429),
    "too_many_attempts": _of("Too many log-ins at this account", _LATER, 429),
    "quota_exceeded": _of(
        "The project's quota is used up", "Delete something, or ask an operator to raise the quota.", 403
    ),
    "internal_error": _of("Something went wrong here", _OPERATOR, 500),
    "unavailable": _of("Not available now", _LATER, 503),
    "disk_full": _of(
        "A disk of the service is full", "Tell the operator; ask again when there is room.", 503, 507
    ),
    # Who asks
    "unauthorized": _of("No caller", "Send Authorization: Bearer with an API key or an access token.", 401),
    "invalid_credentials": _of("The username or the password is wrong", "Log in again.", 401),
    "not_a_member": _of("No member of that project", "Name a project of yours.", 401),
    "token_expired": _of("The access token has expired", "Refresh it, or log in again.", 401),
    "token_invalid": _of("The access token is not valid", "Log in again.", 401),
    "refresh_token_invalid": _of(
        "The refresh token is not valid",
        "Log in again. If you did not expect it, somebody else may have had the token.",
        401,
    ),
    "key_invalid": _of("The API key is not valid", "Make another key.", 401),
    "key_expired": _of("The API key has expired", "Make another key.", 401),
    "user_not_linked": _of(
        "Nobody here is linked to that log-in", "Ask an operator to link the subject to your user.", 401
    ),
    "issuer_unavailable": _of("The external log-in does not answer", _LATER, 503),
    "wrong_password": _of("The old password is wrong", "Send the password that you have now.", 403),
    "forbidden": _of("The role is not enough", "Ask an admin of the project for the role.", 403),
    "scope_missing": _of("The key lacks the scope", "Use a key with that scope.", 403),
    "needs_log_in": _of("A key makes no keys and changes no password", "Log in, then do it.", 403),
    "last_admin": _of("The project's last admin", "Make another member admin first.", 409),
    "last_operator": _of("The last operator", "Make another user operator first.", 409),
    "subject_taken": _of("Another user has that subject", "Unlink it there first.", 409),
    "no_issuer": _of("No external log-in", "The operator sets OIDC_ISSUER first.", 409),
    "username_taken": _of("The username is taken", "Choose another.", 409),
    "project_taken": _of("The project's id is taken", "Choose another.", 409),
    "not_a_role": _of("No role of a project", "Give viewer, developer or admin.", 409),
    "key_is_configured": _of(
        "The signing key is set", "Change SECRET_KEY, and put the old one into OLD_SECRET_KEYS.", 409
    ),
    "user_not_found": _of("No such user", _LOOK, 404),
    "member_not_found": _of("No such member", _LOOK, 404),
    "project_not_found": _of("No such project", _LOOK, 404),
    "key_not_found": _of("No such key", _LOOK, 404),
    "webhook_not_found": _of("No such webhook", _LOOK, 404),
    "too_many_webhooks": _of("As many webhooks as a project may have", "Remove one first.", 409),
    "secret_unreadable": _of(
        "The webhook's secret cannot be read",
        "The operator restores ENCRYPTION_KEY or its file, or each webhook's secret is rotated.",
        503,
    ),
    # Data
    "dataset_not_found": _of("No such dataset", _LOOK, 404, 422),
    "tag_not_found": _of("No such tag", _LOOK, 404),
    "row_not_found": _of("No such row", "Ask for a row that there is: detail has the numbers.", 404),
    "dataset_name_taken": _of("The dataset's name is taken", "Choose another, or upload its next version.", 409),
    "dataset_in_use": _of("A job needs the dataset", "Wait for the job to end, or cancel it.", 409),
    "dataset_changed": _of("The file has changed", "Submit again: the job is of the file as it was.", 409),
    "dataset_too_large": _of(
        "Too large to be read while you wait",
        "Split a file, or upload it as a dataset; of a dataset, detail says what looks through it.",
        422,
    ),
    "dataset_path_not_allowed": _of("No path to take", "Name a file under data/raw, without .. in it.", 422),
    "dataset_missing": _of("The dataset's file is gone", _OPERATOR, 503),
    "file_type_not_supported": _of("No type to read", "Send json, jsonl, csv or parquet.", 422),
    "bad_name": _of("No name to take", "Choose a name as detail says.", 422),
    "bad_reference": _of("No reference", "Write ds-…, ds-…:3 or ds-…@tag.", 422),
    "invalid_data": _of("The data has faults", _DATA, 422),
    "invalid_row": _of("The row has faults", _DATA, 422),
    "no_rows": _of("No row is left", "Make the steps of the pipeline milder.", 422),
    "unknown_column": _of("No such column", "Name a column that the rows have.", 422),
    "wrong_shape": _of("Rows of another objective", "Choose the objective that trains on such rows.", 422),
    "same_answer": _of("Nothing to prefer", "Give two different answers.", 422),
    "no_answer": _of("No answer to train on", "End each conversation with an answer.", 422),
    "no_token": _of("No token", "Send a text that the model's tokenizer knows.", 422),
    "only_a_thought": _of("Nothing but reasoning", "Keep the reasoning, or give an answer after it.", 422),
    "unknown_label": _of("A label that is never trained", "Give it to training rows too.", 422),
    "extra_missing": _of("A package is not installed", "Ask the operator to install the extra in detail.", 503),
    "file_not_found": _of("No such file", _LOOK, 404),
    "results_stay": _of("A job's results are not deleted", "Nothing: they go with the job.", 409),
    "base_model_stays": _of("A base model is not deleted", "Name a version of the project.", 403),
    "version_has_alias": _of("An alias names the version", "Move or remove the alias first.", 409),
    # Jobs
    "job_not_found": _of("No such job", _LOOK, 404),
    "job_is_final": _of("The job has ended", "Read it again; retry makes a new job.", 409),
    "invalid_transition": _of("Not from this state", "Read the job again.", 409),
    "nothing_to_retry": _of("Not failed and not cancelled", "Retry what failed or was cancelled.", 409),
    "foreground_job": _of("It trains in a terminal", "Stop it there with Ctrl-C.", 409),
    "run_is_finished": _of("The run is finished", "Ask its version, or start a new run.", 409),
    "run_is_live": _of("A trainer is at work there", "Wait for it to end.", 409),
    "too_many_jobs": _of("The project's queue is full", _LATER, 429),
    "cannot_pause": _of("Its kind of job cannot pause", "Cancel the job, and retry it later.", 409),
    "dependency_failed": _of(
        "A job that it waits for made nothing", "Look at that job's error; submit both again.", 409
    ),
    "unknown_kind": _of("No such kind of job", "Name a kind that detail lists.", 422),
    "name_taken": _of("A step's name stands twice", "Give each step of a chain a name of its own.", 422),
    "unknown_step": _of("No such step before it", "Name a step that stands before this one.", 422),
    "time_limit": _of("It took longer than its kind may", "Ask for less, or when less runs there."),
    "pipeline_failed": _of("The pipeline ended before its time", "Look at the worker's log, then retry.", 422),
    "stopped": _of("Told to stop", "Nothing: it was cancelled, or is taken up again.", 503),
    "cancelled": _of("The job was cancelled", "Ask again.", 409),
    "estimate_failed": _of("The estimate failed", "Ask again; if it stays so, tell the operator.", 503),
    "estimate_timeout": _of("The estimate took too long", "Ask again: what was measured is kept.", 503),
    "inspect_failed": _of("The inspection failed", "Ask again; if it stays so, tell the operator.", 503),
    "does_not_fit": _of("It does not fit in memory", "Change the config as detail suggests.", 422),
    "device_missing": _of("No such device", "Choose a device or strategy that this host has.", 422),
    "package_missing": _of("A package is not installed", "Install what detail names, or choose another way.", 422),
    "tracker_not_installed": _of("No such tracker here", "Install it, or leave it out of report_to.", 422),
    "invalid_config": _of("The config has faults", "Mend what errors lists.", 422),
    "cannot_resume": _of("Not the run that was saved", "Start a new run; errors lists what changed.", 422),
    "no_checkpoint": _of("No checkpoint", "Start the run anew.", 422),
    "not_a_run": _of("No run folder", "Name a folder under results.", 422),
    "nothing_to_score": _of("Nothing to score by", "Choose a split with rows that can be scored.", 422),
    "nan_loss": _of("The loss is not a number", "Lower learning_rate, or look at the rows in detail."),
    "trainer_failed": _of("The trainer failed", "Look at the run's logs.txt, then retry."),
    "trainer_stopped": _of("The trainer was ended from outside", "Retry the job."),
    "out_of_memory": _of("Out of memory", "Lower batch_size or max_length, then retry."),
    "lease_ended": _of("The attempt lost its lease", "Nothing: it is tried again."),
    "worker_lost": _of("The worker was lost", "Nothing: it is tried again."),
    "poisoned": _of("Lost in every attempt", "Look at the run's logs.txt: the job may end its worker."),
    "interrupted": _of("The command ended", "Start it again."),
    "job_failed": _of("A job of the command failed", "Look at its error."),
    # Models
    "model_not_found": _of("No such model", _LOOK, 404),
    "alias_not_found": _of("No such alias", _LOOK, 404),
    "split_alias": _of("The alias is split between versions", "Name one of its versions.", 422),
    "unknown_base_model": _of("No such base model", "Name one that `flask models list` shows.", 422),
    "base_model_missing": _of("The base model is not on this host", "Ask for flask models pull NAME.", 503),
    "base_model_incomplete": _of("A base model half there", "Remove its folder, then pull it again.", 409),
    "invalid_catalogue": _of("The list of base models has faults", "Mend config/base_models.yaml.", 422),
    "not_llama": _of("Not of the Llama family", "Choose a model of that family.", 422),
    "adapter_not_supported": _of("No such adapter here", "Choose an adapter that the code by hand reads.", 422),
    "artifacts_missing": _of("The version's files are gone", _OPERATOR, 503),
    "template_mismatch": _of("Not the template it was trained with", _OPERATOR, 503),
    "base_mismatch": _of("Not the base model it was trained on", _OPERATOR, 503),
    "tokenizer_not_supported": _of("No tokenizer to read", "Choose a model with a tokenizer.json.", 422),
    "tokenizer_unreadable": _of("The tokenizer cannot be read", _OPERATOR, 503),
    "template_not_supported": _of("No chat template to use", "Choose a model with a chat template.", 422),
    "template_refused": _of("The chat template does not work", "Choose another model: detail says why.", 422),
    "chat_not_renderable": _of("The template takes no such conversation", "Change it as detail says.", 422),
    "tools_not_supported": _of("The template knows no tools", "Leave out tools, or ask another model.", 422),
    "system_message_refused": _of("The template takes no system message", "Leave it out.", 422),
    # Answers
    "not_generative": _of("A model that tells labels", "Ask one that writes text, or predict.", 422),
    "not_servable": _of("No engine serves this version", "Ask another version; detail says why.", 422),
    "no_adapter": _of("The version has no adapter", "Ask it: whole models are not loaded like that.", 422),
    "adapter_not_loaded": _of("The adapter is not loaded", "Load it first.", 404),
    "adapter_refused": _of("The engine refused the adapter", "Look at the engine's log.", 422, 503),
    "pin_not_supported": _of("This engine pins nothing", "Load it without pinned.", 422),
    "wrong_base_model": _of("Of another base model", "Name the engine of its base model.", 422),
    "base_not_resident": _of("No engine serves the base model", "Ask again later, or the operator.", 503),
    "engine_busy": _of("The engine has too much to do", _LATER, 429),
    "engine_unavailable": _of("The engine does not answer", _LATER, 503),
    "engine_failed": _of("The engine failed on the way", "Ask again.", 503),
    "engine_timeout": _of("The engine took too long", "Ask for less, or with more deadline_seconds.", 503),
    "client_gone": _of("Nobody waits for the answer", "Nothing: the client went away.", 503),
    "stopping": _of("The service stops", "Ask again shortly.", 503),
    "too_many_streams": _of("As many streams are open as may be", "Ask again, or without a stream.", 503),
    "database_not_ready": _of("The database is not ready", "Tell the operator what detail says.", 503),
}


def as_markdown() -> str:
    lines = [
        "# Errors",
        "",
        f"{INTRODUCTION} The service has this page at `{PAGE}`.",
        "",
        "Each fault in `errors` has a `code` of its own (`missing`, `wrong_type` …), with `where` it is.",
    ]
    for code, about in CODES.items():
        lines += ["", f"## {code}", "", f"{about.title} (status {about.answered}). {about.advice}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(as_markdown())
