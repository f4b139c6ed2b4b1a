RUN := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow lint format audit sbom serve clean data-analyze data-validate data-versions
.PHONY: bench-train bench-data bench-jobs bench-job-start bench-serve bench-gateway

help:
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

# The first Python on the PATH that runs and is new enough. Another: make install PYTHON=/path/to/python
install:  ## set up .venv; quick when nothing has changed
	@for python in $(or $(PYTHON),python3 python3.11 python3.12 python3.13 python3.14 python); do \
		if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			exec $$python tools/install.py; \
		fi; \
	done; echo "make install: no Python 3.11 or newer: looked for $${python} and the like on the PATH" >&2; exit 1

demo: install  ## the main job: fine-tune the starter model, compare it, publish it, ask it
	@$(RUN) -m app.scripts.demo

# Two files at a time, the long ones of e2e and integration first. One OpenMP thread: the models are tiny, and the processes that a test starts share the cores.
test: install  ## all tests but the slow ones, with coverage
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m "not slow" --cov -n 2 --dist loadfile --no-loadscope-reorder --durations=25

# The first time it makes vLLM's environment (3.4 GB) under benchmarks/.envs, or where VLLM_ENVS says
test-slow: install  ## the tests that take minutes
	$(RUN) -m pytest -m slow

lint: install  ## formatting, rules, types, layers, what bandit finds
	$(RUN) -m ruff format --check
	$(RUN) -m ruff check
	$(RUN) -m mypy
	.venv/bin/lint-imports --no-logo --no-cache
	.venv/bin/bandit --quiet --configfile pyproject.toml --recursive app config tools run.py

format: install  ## format the code and fix what ruff can fix
	$(RUN) -m ruff format
	$(RUN) -m ruff check --fix

# Where the advisories cannot be reached it says so, and does not fail
audit: install  ## the pinned packages against the known vulnerabilities
	@$(RUN) tools/audit.py $(ARGS)

sbom: install  ## the packages that are installed, as CycloneDX, in build/sbom.json
	@mkdir -p build
	.venv/bin/cyclonedx-py environment .venv --pyproject pyproject.toml --output-reproducible -o build/sbom.json

serve: install  ## the service: web, worker and engine on http://127.0.0.1:5000
	@$(RUN) run.py

# Another file or dataset: make data-validate ARGS="ds-… --base-model smollm2-135m-instruct"
data-analyze: install  ## what a file or a dataset holds: rows, labels, lengths
	@.venv/bin/flask --app run data analyze $(ARGS)

data-validate: install  ## every fault of a file or a dataset, and what is legal and yet suspicious
	@.venv/bin/flask --app run data validate $(ARGS)

data-versions: install  ## the datasets that are kept, or with ARGS=ds-… the versions of one
	@.venv/bin/flask --app run data $(if $(ARGS),versions $(ARGS),list)

# Once it has made the peers' environments (4 GB) about an hour. Options: make bench-train ARGS="--model r1-shape"
bench-train: install  ## this trainer beside TRL and LLaMA-Factory on the same rows: speed, memory, loss
	@$(RUN) -m benchmarks.training $(ARGS)

# Ten minutes, and 4 GB of disk for that time. Smaller: make bench-data ARGS="--rows 100000 --only jsonl"
bench-data: install  ## the check of a million rows beside plain reading: rows a second, memory
	@$(RUN) -m benchmarks.data $(ARGS)

# Five minutes
bench-job-start: install  ## from POST to the first optimizer step, with and without a spare trainer, and a script
	@$(RUN) -m benchmarks.job_start $(ARGS)

# A quarter of an hour; it wants Redis and PostgreSQL. Without: make bench-jobs ARGS='--stacks "SQLite, files"'
bench-jobs: install  ## jobs through the queue beside plain Celery: submission to start, jobs a second
	@$(RUN) -m benchmarks.jobs $(ARGS)

# Half an hour once vLLM has its environment (3 GB)
bench-serve: install  ## the engine beside vLLM's CPU build and transformers with PEFT: tokens a second, first token
	@$(RUN) -m benchmarks.serving $(ARGS)

bench-gateway: install  ## a request through the gateway beside a bare Flask route; 200 streams in one process
	@$(RUN) -m benchmarks.gateway $(ARGS)

clean:  ## remove what the tools left; models, data, results and .venv stay
	rm -rf build dist *.egg-info htmlcov coverage.xml .coverage .coverage.*
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find app benchmarks config tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
