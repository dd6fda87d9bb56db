# Everything a developer types. `make help` lists it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.PHONY: help run build test check fmt audit bench bench-smoke bench-drain bench-noisy bench-telemetry bench-reads bench-disk bench-sweep journey kill-test restart-test nodes-test model-test sweep-test deploy-test distribution-test api-fuzz openapi clean deps

LISTEN ?= 127.0.0.1:8080
STORE ?= sqlite:data/scrip.db

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

run: ## Build and start Scrip on SQLite in ./data, with a demo tenant
	cargo build --release --bin scrip
	./target/release/scrip serve --demo --listen $(LISTEN) --store $(STORE)

build: ## Build the release binary: target/release/scrip
	cargo build --release --bin scrip

deps: ## Install what the tests need and is missing (PostgreSQL, Redis, NATS), through apt
	@scripts/install-test-deps.sh

test: deps ## Run every test, on SQLite and on a real PostgreSQL, and a slice of the retail year
	cargo test --workspace
	cargo build --bin scrip
	SCRIP_BIN=$(CURDIR)/target/debug/scrip scripts/readme-tour.py
	SCRIP_BIN=$(CURDIR)/target/debug/scrip scripts/deploy-test.sh
	SCRIP_BIN=$(CURDIR)/target/debug/scrip SCRIP_FUZZ_EXAMPLES=3 scripts/api-fuzz.sh
	SCRIP_BIN=$(CURDIR)/target/debug/scrip scripts/journey-slice.sh

check: ## Formatter and clippy; warnings are errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

fmt: ## Format the code
	cargo fmt --all

audit: ## Licences, sources and duplicate crates; unused dependencies
	@scripts/audit.sh

bench: deps ## Measure: every scenario on SQLite and PostgreSQL, beside the brief's algorithm
	cargo build --release --workspace
	scripts/bench.sh

bench-smoke: deps ## The same, seconds long: does it run, not how fast it is
	cargo build --release --workspace
	scripts/bench.sh --smoke

bench-drain: deps ## How fast 100,000 jobs are done, and 1,000,000 events go to a webhook and to NATS (PostgreSQL)
	cargo build --release --bin scrip
	SCRIP_BIN=$(CURDIR)/target/release/scrip scripts/with-postgres.sh scripts/drain.py jobs
	SCRIP_BIN=$(CURDIR)/target/release/scrip scripts/with-postgres.sh scripts/drain.py webhook
	SCRIP_BIN=$(CURDIR)/target/release/scrip scripts/with-postgres.sh scripts/drain.py nats

bench-noisy: deps ## What a tenant at ten times its quota does to another's claims (PostgreSQL)
	cargo build --release --bin scrip
	SCRIP_BIN=$(CURDIR)/target/release/scrip scripts/with-postgres.sh scripts/noisy-tenant.py

bench-telemetry: deps ## What metrics and traces cost on hot claims (SQLite)
	cargo build --release --bin scrip
	SCRIP_BIN=$(CURDIR)/target/release/scrip scripts/telemetry-overhead.py

bench-reads: deps ## 5,000 reads a second on ten million rows: as it is, without caches, with a replica (PostgreSQL)
	cargo build --release --bin scrip
	SCRIP_BIN=$(CURDIR)/target/release/scrip scripts/bench-reads.sh

bench-disk: deps ## Claims on a disk that syncs 5 ms slower, and bytes on disk for each claim and debit (both stores)
	cargo build --release --bin scrip
	SCRIP_BIN=$(CURDIR)/target/release/scrip scripts/bench-disk.sh

bench-sweep: deps ## Claims before and while a million lots of another tenant expire at once (both stores)
	cargo build --release --bin scrip
	SCRIP_BIN=$(CURDIR)/target/release/scrip scripts/bench-sweep.sh

journey: deps ## Replay the whole retail year on SQLite and on PostgreSQL
	cargo build --release --bin scrip
	SCRIP_BIN=$(CURDIR)/target/release/scrip scripts/journey.sh

kill-test: deps ## 200 kill -9 cycles under load on each store (CI runs a short form)
	SCRIP_KILL_CYCLES=200 cargo test --release -p scrip-server --test it -- --nocapture kill

restart-test: deps ## Restart two nodes in turn under load, 100 times: no request may fail (CI runs a short form)
	SCRIP_RESTARTS=100 cargo test --release -p scrip-server --test it -- --nocapture restarted

nodes-test: deps ## Two nodes, a replica, Redis and NATS, each taken away in turn under load, 20 times (CI runs a short form)
	SCRIP_NODES_ROUNDS=20 cargo test --release -p scrip-server --test it -- --nocapture nodes

model-test: deps ## A million random commands against the reference model on each store (CI runs a tenth)
	SCRIP_MODEL_COMMANDS=1000000 cargo test --release -p scrip-server --test it -- --nocapture model

distribution-test: deps ## A distribution of a million rows on each store, killed three times (CI runs a short form)
	SCRIP_DISTRIBUTION_ROWS=990000 cargo test --release -p scrip-server --test it -- --nocapture --test-threads 1 killed_three_times

sweep-test: deps ## A million lots that expire at once, on each store, beside a sale (CI runs a short form)
	SCRIP_SWEEP_LOTS=1000000 cargo test --release -p scrip-server --test it -- --nocapture --test-threads 1 expires_at_once

deploy-test: deps ## Alert rules by promtool; every query of the dashboard on a live Prometheus
	cargo build --bin scrip
	SCRIP_BIN=$(CURDIR)/target/debug/scrip scripts/deploy-test.sh

api-fuzz: deps ## Generated requests for every operation of the API: no server error, every answer as described (CI: a short form)
	cargo build --release --bin scrip
	SCRIP_BIN=$(CURDIR)/target/release/scrip SCRIP_FUZZ_EXAMPLES=500 scripts/api-fuzz.sh

openapi: ## Write openapi.json from the code
	cargo run --quiet --bin scrip -- openapi > openapi.json

clean: ## Remove what was built; keeps ./data
	cargo clean
