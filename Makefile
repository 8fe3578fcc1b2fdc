# The words of this project: setup, run, check, test, sim, bench. Each is a line or two.
PYTHON := .venv/bin/python

.PHONY: setup run check test fast sim torture bench fuzz lock dist images deb wrapper release fix

setup:  ## environment for development, and the system packages the tests need
	./packaging/setup.sh

run:  ## a cluster on this machine
	./k3s server

check: setup  ## style, types, import contracts and the fast tests: under a minute
	$(PYTHON) -m ruff format --check src tests packaging bench
	$(PYTHON) -m ruff check src tests packaging bench
	$(PYTHON) -m mypy src
	.venv/bin/lint-imports
	$(PYTHON) -m pytest -q -m "not slow and not root and not e2e"

test: check  ## everything: under 20 minutes on two cores
	$(PYTHON) -m pytest -q -m "slow or root or e2e"

sim: setup  ## the simulated cluster: make sim SEEDS=5000
	$(PYTHON) -m k3s.sim --seeds $(or $(SEEDS),50)

fuzz: setup  ## odd inputs for the parsers and the API: make fuzz SECONDS=600
	$(PYTHON) tests/fuzz/run.py --seconds $(or $(SECONDS),30)

torture: setup  ## the server killed 200 times, thousands of power failures, growth: make torture ARGS="--kills 20 --only kill"
	$(PYTHON) -m tests.torture $(ARGS)

bench: setup  ## the figures of docs/benchmarks.md
	$(PYTHON) bench/run.py

lock: setup  ## pin the present version of everything the executable carries, and show what changes
	$(PYTHON) packaging/lock.py $(or $(STORE),$(HOME)/.cache/k3s-build)

dist: setup  ## dist/k3s, the one executable; make dist ARCH=arm64 for dist/k3s-arm64
	$(PYTHON) packaging/dist.py $(if $(ARCH),--arch $(ARCH)) $(if $(STORE),--store $(STORE))

images: setup  ## images for hosts that reach no registry; make images ARCH=arm64
	$(PYTHON) packaging/dist.py images $(if $(ARCH),--arch $(ARCH)) $(if $(STORE),--store $(STORE))

deb: setup  ## the Debian package: the executable with its units; make deb ARCH=arm64
	$(PYTHON) packaging/dist.py deb $(if $(ARCH),--arch $(ARCH)) $(if $(STORE),--store $(STORE))

release: setup  ## everything that is handed out, for both architectures: dist/VERSION
	$(PYTHON) packaging/release.py $(if $(STORE),--store $(STORE))

wrapper: setup  ## PREFIX/bin/k3s with the system's own containerd, runc and CNI plugins: make wrapper PREFIX=/opt/k3s
	$(PYTHON) packaging/wrapper.py --prefix $(or $(PREFIX),$(error name the folder: make wrapper PREFIX=/opt/k3s))

fix: setup
	$(PYTHON) -m ruff format src tests packaging bench
	$(PYTHON) -m ruff check --fix src tests packaging bench
