# All tasks of the project. `make help` lists them. A new machine needs Rust, and Python or Go for
# nats-server; tests on Kubernetes need Go, and `make check` needs Python.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
RULES ?= examples/rules
DEMO ?= --demo
# The path of nats-server, which is installed first if it is missing.
NATS_SERVER_PATH = $$(tools/nats-server.sh)
# `make up`, lints and tests share one profile (dev), one target folder and one set of features, so
# that nothing is built twice. docs/decisions/0017 has the figures.
BUILD = $(CARGO) build --locked --workspace
TEST = $(CARGO) test --locked --workspace
# Most of these tests wait, so at least four run at a time.
MANY = --test-threads=$$(( $$(nproc) > 4 ? $$(nproc) : 4 ))
# The integration tests of the crates: quick ones that need no server.
CRATE_TESTS = $(addprefix --test=,$(sort $(notdir $(basename $(wildcard */tests/*.rs)))))

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | \
		awk -F ':.*## ' '{ printf "%-18s %s\n", $$1, $$2 }'

# === Run ===

.PHONY: up
up: nats-server ## Build and run everything on this machine (RULES=DIR, DEMO= for no receiver)
	@$(BUILD) --bin tidings
	@server=$(NATS_SERVER_PATH); \
	NATS_SERVER=$$server exec target/debug/tidings up $(DEMO) --rules $(RULES) --console

.PHONY: build
build: nats-server ## Build the release executable, target/release/tidings
	@$(CARGO) build --locked --release --bin tidings

IMAGE ?= tidings:$(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

.PHONY: image
image: ## Build the image with docker, podman or buildah (IMAGE=NAME:TAG, ENGINE, PUSH=1)
	@CARGO="$(CARGO)" tools/image.sh $(IMAGE)

.PHONY: release-dry-run
release-dry-run: nats-server ## Run every step of a release that needs no registry (TIDINGS=FILE)
	@CARGO="$(CARGO)" tools/release.sh dry-run

.PHONY: nats-server
nats-server: ## Print the path of nats-server, and install it into .tools/ if it is missing
	@tools/nats-server.sh

# === Test ===

.PHONY: test
test: ## Run all tests, quick ones first
	@MAKE=$(MAKE) tools/steps.sh test-units test-contract test-fuzz test-vectors test-pipeline \
		test-tools test-attack test-faults test-kube

.PHONY: test-units
test-units: ## Test each crate alone
	@$(TEST) --lib --bins $(CRATE_TESTS)

.PHONY: test-contract
test-contract: ## Test every provider type against a service that fails in every way
	@$(TEST) --test contract

FUZZ_SECONDS ?= 10

.PHONY: test-fuzz
test-fuzz: ## Fuzz everything that reads untrusted input (FUZZ_SECONDS=10 for each target)
	@FUZZ_SECONDS=$(FUZZ_SECONDS) $(TEST) --test fuzz -- --show-output

.PHONY: test-vectors
test-vectors: nats-server ## Replay recordings of notification-controller; print what is skipped
	@$(TEST) --test vectors -- --show-output

.PHONY: test-pipeline
test-pipeline: nats-server ## Test the roles on a real nats-server, with receivers that fail
	@$(TEST) --test pipeline -- $(MANY)

.PHONY: test-tools
test-tools: nats-server ## Test the command line, `up` with its own nats-server, settings, readiness
	@$(TEST) --test tools -- --show-output $(MANY)

.PHONY: test-attack
test-attack: nats-server ## Attack `up` under a memory limit while a neighbor's events arrive
	@$(TEST) --test attack -- --show-output

# The test of a cluster under load needs all cores, so it runs alone.
.PHONY: test-faults
test-faults: nats-server ## Kill processes while events arrive, and account for every event
	@$(TEST) --test faults -- --show-output $(MANY) --skip cluster::killing_a_leader
	@$(TEST) --test faults cluster::killing_a_leader -- --show-output

# The script exits with 3 if this machine cannot build what is needed. In CI that is an error.
.PHONY: test-kube
test-kube: nats-server ## Test on a real kube-apiserver: CRDs, rules, Events, status, RBAC
	@if tools/kubernetes.sh >/dev/null; then $(TEST) --test kube -- $(MANY); \
	elif [ $$? -eq 3 ] && [ "$${CI:-}" != true ]; then \
		echo "skipped: the tests with a Kubernetes API; see above"; \
	else exit 1; fi

# Not in CI: it needs a browser.
.PHONY: test-console
test-console: nats-server ## Try the console in Chromium (SCREENSHOTS=1 writes docs/console/)
	@$(BUILD) --bin tidings
	@server=$(NATS_SERVER_PATH); NATS_SERVER=$$server tools/test-console.sh

# The script exits with 3 if this machine has no Python with pip. Not in CI: all that CI must know
# about the pages, tools/check-links.py finds.
.PHONY: site
site: ## Build the docs as a site into target/site, and check its links
	@tools/site.sh

# Not in CI: it builds the collector first.
.PHONY: test-collector
test-collector: nats-server ## Send traces to a real OpenTelemetry Collector
	@tools/collector.sh >/dev/null
	@$(TEST) --test pipeline real_collector:: -- --ignored

# Not in CI: it needs root, and builds the parts of a node once.
.PHONY: e2e
e2e: site ## Test the chart on a real node (E2E_RATE=50 events/s, E2E_SECONDS=120)
	@$(TEST) --test e2e --no-run
	@CARGO="$(CARGO)" tools/e2e.sh $(TEST) --offline --test e2e -- --ignored --nocapture \
		--test-threads=1

# Not in CI: it builds the last release first.
.PHONY: test-upgrade
test-upgrade: nats-server ## Upgrade from the last release and back, and NATS servers, under load
	@previous=$${PREVIOUS_TIDINGS:-$$(CARGO="$(CARGO)" tools/release.sh previous)}; \
	PREVIOUS_TIDINGS=$$previous $(TEST) --test faults upgrade:: -- --ignored --show-output \
		--test-threads=1

SOAK_MINUTES ?= 30

.PHONY: soak
soak: nats-server ## Run long tests: random faults (SOAK_MINUTES=30), rate limits, memory, upgrades
	@SOAK_MINUTES=$(SOAK_MINUTES) $(TEST) --test faults soak -- --nocapture
	@$(TEST) --test pipeline -- --ignored
	@MAKE=$(MAKE) tools/steps.sh test-upgrade bench-fleet

# The attacks of tenants, senders and services, each alone.
PIPELINE_ATTACKS = hostile_rules:: memory:: expressions:: isolation:: mentions:: poison:: \
	proxies:: api_addresses:: secrets:: nats:: retries::

.PHONY: attack
attack: nats-server ## Run all attacks, also long ones; fuzz each target for a minute (FUZZ_SECONDS)
	@$(TEST) --test attack -- --include-ignored --show-output
	@$(TEST) --test pipeline -- --include-ignored $(PIPELINE_ATTACKS)
	@$(TEST) --test tools -- foreign_text:: forged_events:: fleet::forbidden
	@$(TEST) --test faults -- dead_holders:: full_disk:: consumer_state:: lost_deliveries::
	@MAKE=$(MAKE) FUZZ_SECONDS=$${FUZZ_SECONDS:-60} tools/steps.sh test-fuzz

.PHONY: bench-fleet
bench-fleet: nats-server ## Measure one hub with many members (BENCH_MEMBERS=10:5,50:5,200:5,1000:1)
	@server=$(NATS_SERVER_PATH); NATS_SERVER=$$server $(CARGO) bench --locked --bench fleet

.PHONY: bench
bench: nats-server ## Measure throughput, latency, memory, calls to a forge, permits
	@server=$(NATS_SERVER_PATH); NATS_SERVER=$$server $(CARGO) bench --locked --bench throughput
	@server=$(NATS_SERVER_PATH); NATS_SERVER=$$server $(CARGO) bench --locked --bench statuses
	@server=$(NATS_SERVER_PATH); NATS_SERVER=$$server $(CARGO) bench --locked --bench workers
	@$(CARGO) bench --locked --package tidings-workers --bench permits

# === Check ===

.PHONY: check
check: ## Run every check that is not a test
	@MAKE=$(MAKE) tools/steps.sh check-format check-language check-proto check-deploy check-console \
		check-lints check-doc check-dependencies

.PHONY: check-format
check-format: ## Compare the code with rustfmt's output
	@$(CARGO) fmt --all --check
	@# cargo fmt does not find the modules that the macro of the provider types declares.
	@rustfmt --edition 2024 --check workers/src/notifier/*.rs

# Needs Python 3 with pip, and fails without it.
.PHONY: check-language
check-language: ## Check wording, line width, links and spelling
	@python3 tools/check-language.py
	@python3 tools/check-links.py
	@tools/codespell.sh

.PHONY: check-proto
check-proto: ## Compare the wire contract with the last release
	@tools/proto-breaking.sh

# The script exits with 3 if this machine cannot install what is needed. In CI that is an error.
.PHONY: check-deploy
check-deploy: ## Check the chart, Kustomize, alerting rules and runbooks in deploy/
	@if tools/check-deploy.sh; then true; elif [ $$? -eq 3 ] && [ "$${CI:-}" != true ]; then \
		echo "skipped: the checks of deploy/; see above"; \
	else exit 1; fi

# The script exits with 3 if there is no npm. In CI that is an error.
.PHONY: check-console
check-console: ## Compare the console's page with what its sources build
	@if tools/check-console.sh; then true; elif [ $$? -eq 3 ] && [ "$${CI:-}" != true ]; then \
		echo "skipped: the check of console/; see above"; \
	else exit 1; fi

.PHONY: check-lints
check-lints: ## Run clippy and deny its warnings
	@$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

.PHONY: check-doc
check-doc: ## Build the API documentation and deny its warnings
	@RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --quiet

.PHONY: check-dependencies
check-dependencies: ## Check licenses, sources and unused dependencies
	@tools/check-dependencies.sh

# === Generate ===

.PHONY: docs
docs: ## Write docs/reference/ and the tables of docs/providers.md
	@UPDATE_DOCS=1 $(TEST) --test reference --test contract docs_
	@UPDATE_DOCS=1 $(TEST) --test tools the_command_line_reference

.PHONY: console
console: ## Write console/dist from the sources in console/
	@tools/check-console.sh --write

.PHONY: crds
crds: ## Write deploy/crds from the types in rules/src/resource.rs
	@$(CARGO) run --locked --quiet --bin tidings -- crds --write deploy/crds

.PHONY: chart-readme
chart-readme: ## Write deploy/chart/README.md from values.yaml
	@python=$$(tools/pip-tool.sh yaml); PYTHONPATH=.tools/yaml "$$python" tools/deploy/chart_readme.py

.PHONY: alerts
alerts: ## Write the PrometheusRule from deploy/monitoring/alerts.yaml
	@python=$$(tools/pip-tool.sh yaml); \
	PYTHONPATH=.tools/yaml "$$python" tools/deploy/check_alerts.py --write
