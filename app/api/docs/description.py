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

`application/problem+json` (RFC 9457), with every fault at once in `errors`: `malformed_json` (400) where it is no
JSON at all, `invalid_request` (422) where fields have faults. `code` is stable, and `type` the address of its
entry on [the page of codes](/docs/errors), which says what to do. `request_id` is also in the header
`X-Request-ID` and in the service's log.

## Rate limits

{rate_limit} for each API key, or user who has logged in, over all routes, and {login_rate_limit} for each address
at the log-in. Answers of models count their tokens too, and a project may have rates for all of its callers. The
headers `RateLimit-Policy` and `RateLimit` list each: what is left (`r`) and when there is more (`t`, seconds).

## Sent again, done once

The routes that make something take an `Idempotency-Key`: a text of your choice, new for each request. Sent again
with the same key and body, the request gets the answer of the first time, with `Idempotency-Replayed: true`.

Prometheus reads `/metrics`: openly from this host, from elsewhere with the service's `METRICS_TOKEN`.
"""
