# Each target makes its own virtual environment first, so that each is one command on a fresh machine.

PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin

.PHONY: demo finetune-demo test check format bench proof-memory proof-flat proof-poison \
	proof-reading proof-resume proof-listing proof-ingest proof-history proof-share proof-kill \
	proof-lake proof-cluster proof-crashes proof-fuzz proof-scaling proof-100k sim-scale \
	proof-workers proof-corpus lock dist clean

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet "$(TORCH)"
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: .venv/ready
	$(BIN)/pagelake run demo --fresh || test $$? -eq 3
	@echo
	$(BIN)/pagelake eval out/demo --truth jobs/demo/truth.jsonl --by kind

TICKETS := out/finetune_demo/tickets
READ_TICKETS := run demo --runner local --set schema=ticket.v1 --set generation.max_new_tokens=256 \
	--input $(TICKETS)/test/documents --fresh

# Teaches the bundled reader a schema that it never saw: how well does it read before and after?
finetune-demo: .venv/ready
	$(BIN)/python -m pipeline.synth.tickets $(TICKETS)
	$(BIN)/pagelake $(READ_TICKETS) --output out/finetune_demo/before || test $$? -eq 3
	$(BIN)/pagelake finetune finetune_demo
	$(BIN)/pagelake $(READ_TICKETS) --output out/finetune_demo/after \
		--set model.name=out/finetune_demo/tuned/model || test $$? -eq 3
	@echo; echo Before:
	$(BIN)/pagelake eval out/finetune_demo/before --truth $(TICKETS)/test/truth.jsonl
	@echo; echo After:
	$(BIN)/pagelake eval out/finetune_demo/after --truth $(TICKETS)/test/truth.jsonl --by kind

test: .venv/ready
	$(BIN)/python -m pytest

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What docs/PERFORMANCE.md reports. Minutes each, and best on a quiet machine.
bench: .venv/ready
	$(BIN)/python infra/bench/rasterize_encode.py

proof-memory: .venv/ready
	$(BIN)/python infra/bench/memory_flat.py

proof-flat: .venv/ready
	$(BIN)/python infra/proofs/memory_long.py

proof-poison: .venv/ready
	$(BIN)/python infra/proofs/poison_run.py

proof-reading: .venv/ready
	$(BIN)/python infra/bench/reading.py

proof-resume: .venv/ready
	$(BIN)/python infra/proofs/resume_memory.py

proof-listing: .venv/ready
	$(BIN)/python infra/proofs/listing.py

proof-ingest: .venv/ready
	$(BIN)/python infra/proofs/ingest.py

proof-history: .venv/ready
	$(BIN)/python infra/bench/engine_history.py

proof-share: .venv/ready
	$(BIN)/python infra/bench/model_share.py

proof-kill: .venv/ready
	$(BIN)/python infra/proofs/kill.py

proof-lake: .venv/ready
	$(BIN)/python infra/proofs/lake_tables.py
	$(BIN)/python infra/bench/lake_upsert.py

# With root, its machines are network namespaces.
proof-cluster: .venv/ready
	PYTHONPATH=tests/stores $(BIN)/python infra/proofs/cluster.py

proof-crashes: .venv/ready
	$(BIN)/python infra/proofs/renderer_crashes.py

proof-fuzz: .venv/ready
	$(BIN)/python infra/proofs/fuzz.py

proof-scaling: .venv/ready
	$(BIN)/python infra/proofs/scaling.py --rounds 3

proof-100k: .venv/ready
	$(BIN)/python infra/proofs/many_documents.py

# What docs/SCALING.md reckons with, and its tables.
sim-scale: .venv/ready
	mkdir -p build
	$(BIN)/python infra/bench/stage_costs.py > build/stage_costs.json
	$(BIN)/python infra/bench/scale_sim.py --costs build/stage_costs.json

proof-workers: .venv/ready
	$(BIN)/python infra/proofs/workers.py

proof-corpus: .venv/ready
	$(BIN)/python infra/bench/corpus.py build/corpus

# Pins what is installed now, torch left out: which build of it is right depends on the machine.
lock: .venv/ready
	$(BIN)/pip freeze --exclude-editable --exclude pagelake --exclude torch > constraints.txt

# What a cluster is made with: the wheel, and the versions to install with it.
dist: .venv/ready
	rm -rf dist
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .
	cp constraints.txt dist/

clean:
	rm -rf .venv build dist out
