"""What stands at the top of the API page."""

DESCRIPTION = """\
Fine-tune open language models on your own conversations, and ask the result.

## Authenticate

Get a token, or an API key (`flask keys create --name laptop`), and send it with every request. Here, press
**Authorize** and paste it.

```sh
TOKEN=$(curl -s http://127.0.0.1:5000/api/v1/auth/token \\
  -H 'Content-Type: application/json' \\
  -d '{{"username": "admin", "password": "…"}}' | sed 's/.*"access_token":"\\([^"]*\\)".*/\\1/')
```

A token lives for half an hour, and `POST /api/v1/auth/refresh` gets the next one. A **viewer** may read and
predict, a **developer** may train, cancel and set aliases as well, an **admin** manages the project's members and
keys, and an **operator** what is the host's: engines, files under `data/raw`, users, projects. A key may be held
to **scopes**: `datasets`, `train`, `infer`, `models`, `engines`, `usage`, `access`.
Users are made on the host, `flask users create NAME --role developer --password-stdin`, or by an operator.

## Upload, train, watch, ask

A file of rows (json, jsonl, csv or parquet) becomes a dataset with versions that never change. `ds-…` means the
newest, `ds-…:3` the third, `ds-…@tag` the one that the tag names. An operator may name a file under `data/raw`
instead (`dataset_path`).

```sh
curl "http://127.0.0.1:5000/api/v1/datasets?name=support" -H "Authorization: Bearer $TOKEN" -F file=@rows.jsonl
curl http://127.0.0.1:5000/api/v1/train -H "Authorization: Bearer $TOKEN" \\
  -H 'Content-Type: application/json' \\
  -d '{{"dataset_id": "ds-…", "config": {{"num_epochs": 3}}}}'
curl http://127.0.0.1:5000/api/v1/train/status/ftjob-… -H "Authorization: Bearer $TOKEN"
curl http://127.0.0.1:5000/api/v1/predict -H "Authorization: Bearer $TOKEN" \\
  -H 'Content-Type: application/json' \\
  -d '{{"text": "How long do I have to return an item?", "model": "support-assistant"}}'
curl -N http://127.0.0.1:5000/api/v1/chat -H "Authorization: Bearer $TOKEN" \\
  -H 'Content-Type: application/json' \\
  -d '{{"messages": [{{"role": "user", "content": "Hello"}}], "model": "support-assistant", "stream": true}}'
```

A model's name is its alias `champion`, else its newest version; `name:3` is the third, `name@alias` what the alias
says: a version, or several by weight.

## OpenAI's clients

The official `openai` client works with `base_url` set to `http://127.0.0.1:5000/v1` and `api_key` to the token.
Under `/v1` errors come in OpenAI's envelope, and what is 422 elsewhere is 400.

## Errors

`application/problem+json` (RFC 9457), with every fault at once in `errors`. `code` is stable; `request_id` is
also in the header `X-Request-ID` and in the service's log.

| status | code | what to do |
| --- | --- | --- |
| 400 | `malformed_json`, `json_too_deep`, `duplicate_key`, `invalid_text` | send one JSON object in UTF-8 |
| 401 | `unauthorized`, `token_invalid`, `token_expired`, `invalid_credentials`, `not_a_member` | get a new token |
| 401 | `refresh_token_invalid` | log in again |
| 401 | `key_invalid`, `key_expired` | make another key |
| 403 | `forbidden` | ask an admin for the role |
| 403 | `scope_missing`, `needs_log_in` | use a key with that scope; log in to make keys |
| 404 | `not_found`, `job_not_found`, `model_not_found` | look at the id: another project's are not found either |
| 405 | `method_not_allowed` | the header `Allow` lists the methods |
| 403 | `quota_exceeded` | delete something, or ask the operator for more |
| 409 | `conflict`, `job_is_final`, `last_admin` | the thing has moved on: read it again |
| 409 | `idempotency_in_progress` | ask again after `Retry-After` seconds |
| 409 | `idempotency_secret_shown` | it was made; the secret was in the first answer alone |
| 413 | `body_too_large` | send less |
| 415 | `unsupported_media_type` | send `Content-Type: application/json` |
| 422 | `invalid_request` | mend what `errors` lists |
| 422 | `idempotency_key_reused` | the key came with another body: take a new one |
| 422 | `chat_not_renderable` | the model's template takes no such conversation: `detail` has its words |
| 422 | `split_alias` | name one of its versions: training takes no draw |
| 422 | `not_servable` | ask another version: the engine cannot serve this one, as the answer says |
| 422 | `not_generative` | ask a model that writes text: this one tells labels |
| 429 | `rate_limited`, `tokens_used_up`, `too_many_attempts` | wait for `Retry-After` seconds |
| 429 | `engine_busy` | too many requests wait for the engine: wait for `Retry-After` seconds |
| 500 | `internal_error` | give the request id to the operator |
| 503 | `unavailable`, `base_not_resident`, `engine_unavailable`, `base_model_missing` | try again later |
| 503 | `engine_timeout`, `engine_failed` | ask again, for less, or with more time (`deadline_seconds`) |
| 503 | `too_many_streams` | wait for `Retry-After` seconds, or ask without a stream (`events?after=`) |
| 503 | `template_mismatch`, `base_mismatch`, `artifacts_missing` | tell the operator what the answer says |

## Rate limits

{rate_limit} for each API key, or user who has logged in, over all routes, and {login_rate_limit} for each address
at the log-in. Answers of models count their tokens too, and a project may have rates for all of its callers. The
headers `RateLimit-Policy` and `RateLimit` list each: what is left (`r`) and when there is more (`t`, seconds).

## Sent again, done once

The routes that make something take an `Idempotency-Key`: a text of your choice, new for each request. Sent again
with the same key and body, the request gets the answer of the first time, with `Idempotency-Replayed: true`.

Prometheus reads `/metrics`: openly from this host, from elsewhere with the service's `METRICS_TOKEN`.
"""
