# Everything that is done with the project. A fresh machine needs Rust, Go (for kube-apiserver and nats-server) or Python (for
# nats-server only).

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
RULES ?= examples/rules
# The path of nats-server, installed first where there is none.
NATS_SERVER_PATH = $$(tools/nats-server.sh)
# Tests use one profile (dev), one target folder and one set of features, so that nothing is built twice.
TEST = $(CARGO) test --locked --workspace
# The crates' own integration tests: quick ones, which need nothing around them.
CRATE_TESTS = $(addprefix --test=,$(sort $(notdir $(basename $(wildcard */tests/*.rs)))))

.PHONY: help
help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "%-16s %s\n", $$1, $$2 }'

.PHONY: up
up: build ## Build, then run everything on this machine, with examples/rules and a receiver (RULES=DIR for others)
	@server=$(NATS_SERVER_PATH); NATS_SERVER=$$server exec target/release/tidings up --demo --rules $(RULES)

.PHONY: build
build: nats-server ## Build the release executable, target/release/tidings, and get nats-server
	@$(CARGO) build --locked --release --bin tidings

.PHONY: nats-server
nats-server: ## Print the path of nats-server; install it into .tools/ where there is none
	@tools/nats-server.sh

.PHONY: test
test: test-units test-contract test-vectors test-pipeline test-tools test-faults test-kube ## Run all tests, the quick ones first

.PHONY: test-units
test-units: ## The tests of each crate
	@$(TEST) --lib --bins $(CRATE_TESTS)

.PHONY: test-contract
test-contract: ## What every provider type must do, against a service that fails in every way
	@$(TEST) --test contract

.PHONY: docs
docs: ## Write the part of docs/providers.md that is made from the table of provider types
	@UPDATE_DOCS=1 $(TEST) --test contract docs_list_every_type

.PHONY: test-vectors
test-vectors: nats-server ## Recorded requests and answers of notification-controller; lists what it skips, and why
	@$(TEST) --test vectors -- --show-output

.PHONY: test-pipeline
test-pipeline: nats-server ## The roles on a real nats-server, with receivers that fail
	@$(TEST) --test pipeline

.PHONY: test-tools
test-tools: nats-server ## The tools for people, `up` with a nats-server of its own, settings, readiness
	@$(TEST) --test tools -- --show-output

# These mostly wait for what somebody else lets go of: one more at a time than there are cores on a small machine.
.PHONY: test-faults
test-faults: nats-server ## Processes that are killed while events come in, and a ledger of every event
	@$(TEST) --test faults -- --show-output --test-threads=3

# Exit status 3 of the script: what is needed can't be built here. CI must have it.
.PHONY: test-kube
test-kube: nats-server ## A real kube-apiserver with etcd and kubectl: CRDs, rules from a cluster, its events, roles
	@if tools/kubernetes.sh >/dev/null; then $(TEST) --test kube; \
	elif [ $$? -eq 3 ] && [ "$${CI:-}" != true ]; then echo "skipped: the tests with a Kubernetes API; see above"; \
	else exit 1; fi

.PHONY: crds
crds: ## Make deploy/crds anew from the types in rules/src/resource.rs
	@$(CARGO) run --locked --quiet --bin tidings -- crds --write deploy/crds

FUZZ ?= ingest pattern format
FUZZ_SECONDS ?= 60

.PHONY: fuzz
fuzz: ## Throw anything at decoding, patterns and formatting (needs a nightly and cargo-fuzz; FUZZ=TARGET, FUZZ_SECONDS=60)
	@for target in $(FUZZ); do $(CARGO) +nightly fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS); done

SOAK_MINUTES ?= 30

.PHONY: soak
soak: nats-server ## What takes too long for every day: random faults for SOAK_MINUTES=30, and 20,000 deliveries within a limit
	@SOAK_MINUTES=$(SOAK_MINUTES) $(TEST) --test faults soak -- --nocapture
	@$(TEST) --test pipeline -- --ignored twenty_thousand

.PHONY: bench
bench: nats-server ## Events per second, latency and memory, then calls to a forge; BENCH_TARGET=URL measures another program beside (docs/benchmark.md)
	@server=$(NATS_SERVER_PATH); NATS_SERVER=$$server $(CARGO) bench --locked --bench throughput
	@server=$(NATS_SERVER_PATH); NATS_SERVER=$$server $(CARGO) bench --locked --bench statuses

.PHONY: check
check: ## Format, lints, and what may be linked in
	@$(CARGO) fmt --all --check
	@# cargo fmt does not find the modules that the macro of the provider types declares.
	@rustfmt --edition 2024 --check workers/src/notifier/*.rs
	@$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny --locked check bans licenses sources; \
	else echo "skipped: cargo deny is not installed (cargo install --locked cargo-deny)"; fi
