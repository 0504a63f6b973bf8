# Everything a developer does. `make demo` and `make test` work in a fresh clone on Debian 12 as root.

VENV  := .venv
BIN   := $(VENV)/bin
READY := $(VENV)/.ready
DEMO  := build/demo

.DEFAULT_GOAL := help
.PHONY: help setup setup-test demo test test-fast test-vm lint bench traces lab lab-traces \
	lab-replay fleet-lab crash-matrix store-matrix dist clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

$(READY): pyproject.toml
	.ci/apt-install python3 python3-venv
	/usr/bin/python3 -m venv --system-site-packages $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

setup: $(READY) ## the virtual environment

setup-test: $(READY) ## what the tests need: packages, S3 servers and clients, the virtual machine's image
	.ci/apt-install python3-bpfcc linux-headers-amd64 mmdebstrap qemu-system-x86 qemu-utils e2fsprogs \
		openssh-client openssh-server rsync systemd-container zstd iproute2 kmod strace jq vagrant
	$(BIN)/python -m tests.go_programs
	$(BIN)/python -m tests.vm.image --kernel $${AOD_VM_KERNEL:-6.1}

demo: $(READY) ## a recorded slow phase through agent and shipper into build/demo/bucket
	@rm -rf $(DEMO) && mkdir -p $(DEMO)
	@printf 'spool: %s\nscan_interval_sec: 30\ndestination:\n  type: directory\n  path: %s\n' \
		'$(CURDIR)/$(DEMO)/spool' '$(CURDIR)/$(DEMO)/bucket' > $(DEMO)/shipper.yaml
	@echo '== agent: replay of tests/data/slow.trace'
	@$(BIN)/python -m agent.cli replay tests/data/slow.trace --config config/config.yaml --output $(DEMO)/spool
	@echo '== shipper: into $(DEMO)/bucket'
	@$(BIN)/python -m shipper.cli once --config $(DEMO)/shipper.yaml
	@echo '== bucket'
	@cd $(DEMO)/bucket && find . -type f | sort

# Most tests wait more than they work: several at a time take a fraction of the time. Then follow,
# one by one, those that want the machine to themselves. Both parts run, whatever becomes of one;
# what failed in either is told again at the end.
WORKERS  := 4
FAILURES := build/failures.txt
# With "=": pytest takes a name apart for a test as soon as there is such a file.
PYTEST   := $(BIN)/python -m pytest --failures=$(FAILURES)
together := -m 'not (vm or alone)' --numprocesses $(WORKERS) --dist worksteal
alone    := -m 'vm or alone'
quick    := -m 'alone and not vm'
define run_tests
	@mkdir -p build && rm -f $(FAILURES); failed=; \
	$(foreach part,$(1),$(PYTEST) $($(part)) || failed="$$failed $(part)";) \
	[ -z "$$failed" ] || { echo "FAILED, tests that ran:$$failed"; cat $(FAILURES); exit 1; }
endef

test: setup-test ## every test: lint, types, eBPF, MinIO, virtual machine
	$(call run_tests,together alone)

test-fast: $(READY) ## the tests that need no virtual machine
	-$(BIN)/python -m tests.go_programs
	$(call run_tests,together quick)

test-vm: setup-test ## the tests on a real SMB mount; AOD_VM_KERNEL=6.12 for the other kernel
	$(BIN)/python -m pytest -m vm

lint: $(READY) ## style and types
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy

bench: setup-test ## speed and memory, as ratios; figures in build/bench.json
	$(BIN)/python -m tests.bench

traces: setup-test ## record tests/data anew in the virtual machine
	$(BIN)/python -m tests.vm.record_traces
	$(BIN)/python -m tests.vm.record_debug_data

LAB := $(BIN)/python -m tests.lab --episodes '$(or $(EPISODES),*)' --seeds $(or $(SEEDS),4) \
	--kernel $${AOD_VM_KERNEL:-6.1} $(if $(RESUME),--resume) $(if $(STRICT),--strict)

lab: setup-test ## measure detection on labelled episodes; EPISODES=idle,delay_* SEEDS=1 RESUME=1 for a part
	$(LAB)

lab-traces: setup-test ## the same, and keep the episodes in tests/data/episodes for lab-replay
	$(LAB) --keep tests/data/episodes

lab-replay: $(READY) ## score the kept episodes again, without a virtual machine
	$(BIN)/python -m tests.lab.replay

fleet-lab: setup-test ## roll out, upgrade, break and remove a fleet of virtual machines; FLEET=--topology=direct for a part
	$(BIN)/python -m tests.fleet_lab $(FLEET)

crash-matrix: $(READY) ## kill or fail every I/O step, lose power after each; EVERY=5 for a part
	.ci/apt-install strace
	$(BIN)/python -m tests.crash_matrix --every $(or $(EVERY),1)

store-matrix: $(READY) ## spoil every request to a store, kill the shipper at each; EVERY=5 for a part
	.ci/apt-install openssl
	$(BIN)/python -m tests.minio_server
	$(BIN)/python -m tests.store_matrix --every $(or $(EVERY),1)

dist: $(READY) ## dist/aod-release-<version>.tar.gz, which a host is installed from without a network
	$(BIN)/python -m release.build

clean: ## remove what was built here
	rm -rf build dist $(VENV) .mypy_cache .pytest_cache .ruff_cache *.egg-info
