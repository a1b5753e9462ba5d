# Two commands are all a newcomer needs: `make run` and `make test`. The rest is for those who work on Iris.

CARGO ?= cargo
PYTHON ?= python3
VENV := target/venv
PYTEST := $(VENV)/bin/python -m pytest
IRIS := target/release/iris
export IRIS_BIN := $(abspath $(IRIS))
export IRIS_LOADGEN_BIN := $(abspath target/release/iris-loadgen)
# Where tests keep pictures of the dashboard.
export IRIS_PICTURES := $(abspath target/pictures)

# What is installed, and where; DESTDIR comes before it.
LOADGEN := target/release/iris-loadgen
TUNE = $(dir $(IRIS))iris-tune
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
UNITS := iris.service iris-core.service iris-edge@.service iris.slice

.PHONY: help run build test test-rust test-python test-e2e test-systemd sim-sabotage chaos fuzz lint clean install deb
.PHONY: bench bench-check bench-baseline bench-micro bench-peers

help: ## What can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build ## Build and start a server for trying things out: loopback, data in ./iris-data, a printed token
	exec $(IRIS) serve --dev

build: needs-rust ## Release binaries in target/release
	$(CARGO) build --release --locked --workspace

test: test-rust test-python test-e2e ## Install what the tests need and run all of them

test-rust: needs-rust ## Unit, property, and tidy tests of the Rust crates
	$(CARGO) test --locked --workspace --no-fail-fast

test-python: build $(VENV)/.ready ## The Python SDK, against the protocol's vectors and a real server
	cd clients/python && ../../$(PYTEST) -q -rs tests

test-e2e: build needs-peers needs-cargo-deb has-prometheus has-systemd has-browser $(VENV)/.ready ## Real processes: kill -9, hostile clients, limits, recovery
	$(PYTEST) -q -rs tests/e2e

test-systemd: build needs-cargo-deb has-prometheus has-systemd $(VENV)/.ready ## Units and the Debian package under a real systemd in namespaces; root
	$(PYTEST) -q -rs tests/e2e/test_systemd.py tests/e2e/test_debian.py tests/e2e/test_operating.py

chaos: build needs-python ## Clusters that are killed and cut: SCENARIO=name for one, ROUNDS=n of each; root
	$(PYTHON) tests/chaos/run.py --rounds $(or $(ROUNDS),1) $(foreach name,$(SCENARIO),--scenario $(name))

sim-sabotage: needs-rust ## Machines that are wrong on purpose: the simulator must notice each within 1,000 seeds
	$(CARGO) run --release --locked -p iris-sim --features sabotage -- --sabotage all --seeds 1000
	$(CARGO) test --release --locked -p iris-proto --features sabotage --test takeover wrong

fuzz: needs-rust needs-cxx ## Fuzz all that takes bytes from outside: SECONDS=60 for each, TARGET=one JOBS=at-once
	$(PYTHON) fuzz/run.py --seconds $(or $(SECONDS),60) --jobs $(or $(JOBS),1) $(foreach name,$(TARGET),--target $(name))

lint: needs-rust ## Formatting and lints, warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

bench: build ## The figures of README.md, measured here; takes some minutes
	$(PYTHON) bench/run.py

MICRO := $(CARGO) run --release --locked --quiet -p iris-micro --

bench-check: needs-rust ## Count the machines' instructions: fails if one takes over 5 % more than recorded; needs valgrind
	$(MICRO) check

bench-baseline: needs-rust ## Record what bench-check compares with
	$(MICRO) record

bench-micro: needs-rust ## Time the same work: nanoseconds of one operation
	$(MICRO) time

bench-peers: build needs-peers ## Iris beside mosquitto and nats-server, measured here; takes some minutes
	$(PYTHON) bench/peers/run.py

$(IRIS) $(LOADGEN) $(TUNE):
	$(MAKE) build

install: $(IRIS) $(LOADGEN) $(TUNE) ## Install programs, units and pages below DESTDIR and PREFIX; builds only what is not there
	install -d $(addprefix $(DESTDIR)$(PREFIX)/,bin lib/systemd/system lib/sysusers.d lib/tmpfiles.d share/doc/iris share/iris/monitoring)
	install -m 755 $(IRIS) $(LOADGEN) $(TUNE) $(DESTDIR)$(PREFIX)/bin
	for unit in $(UNITS); do \
	  sed 's|/usr/bin/iris|$(PREFIX)/bin/iris|; s|/usr/share/|$(PREFIX)/share/|' systemd/$$unit \
	    > $(DESTDIR)$(PREFIX)/lib/systemd/system/$$unit || exit 1; done
	chmod 644 $(addprefix $(DESTDIR)$(PREFIX)/lib/systemd/system/,$(UNITS))
	install -m 644 -T systemd/iris.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/iris.conf
	install -m 644 -T systemd/iris.tmpfiles $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/iris.conf
	install -m 644 README.md docs/*.md $(DESTDIR)$(PREFIX)/share/doc/iris
	install -m 644 -T systemd/README.md $(DESTDIR)$(PREFIX)/share/doc/iris/SYSTEMD.md
	install -m 644 docs/monitoring/* $(DESTDIR)$(PREFIX)/share/iris/monitoring
	install -d $(DESTDIR)$(SYSCONFDIR)/iris
	test -e $(DESTDIR)$(SYSCONFDIR)/iris/iris.toml || \
	  install -m 644 systemd/iris.toml $(DESTDIR)$(SYSCONFDIR)/iris/iris.toml

DEB_ROOT := target/debian-root
DEB_OUT ?= target/debian

deb: $(IRIS) $(LOADGEN) $(TUNE) needs-cargo-deb ## A Debian package in target/debian, of what `make install` installs
	rm -rf $(DEB_ROOT)
	$(MAKE) install DESTDIR=$(DEB_ROOT) PREFIX=/usr SYSCONFDIR=/etc IRIS=$(IRIS) LOADGEN=$(LOADGEN)
	PATH="$(abspath target/tools/bin):$$PATH" $(CARGO) deb --locked --no-build --quiet $(DEB_FLAGS) --output $(DEB_OUT)/

$(VENV)/.ready: tests/requirements.txt | needs-python
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check -r tests/requirements.txt
	touch $@

.PHONY: needs-rust needs-cxx needs-python needs-peers needs-cargo-deb has-prometheus has-systemd has-browser
needs-rust:
	@command -v $(CARGO) >/dev/null || { echo "cargo not found: install Rust 1.92 or later (https://rustup.rs)" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "no C compiler: apt-get install gcc" >&2; exit 1; }

needs-cxx:
	@command -v c++ >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -q && apt-get install -q -y --no-install-recommends g++; \
	  else echo "no C++ compiler: apt-get install g++" >&2; exit 1; fi; }

needs-python:
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -q && apt-get install -q -y python3 python3-venv; \
	  else echo "python3 with venv not found: apt-get install python3 python3-venv" >&2; exit 1; fi; }

# Debian starts what it installs; here each test and each measurement starts its own.
needs-peers:
	@export PATH="$$PATH:/usr/sbin"; command -v mosquitto >/dev/null && command -v nats-server >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -q && apt-get install -q -y --no-install-recommends mosquitto nats-server; \
	    systemctl disable --now mosquitto nats-server >/dev/null 2>&1 || true; \
	  else echo "mosquitto or nats-server not found, so nothing is compared with it: apt-get install mosquitto nats-server" >&2; fi; }

# Debian starts it, too; the tests start their own. Without it they are skipped, and say so.
has-prometheus:
	@command -v prometheus >/dev/null && command -v promtool >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -q && apt-get install -q -y --no-install-recommends prometheus; \
	    systemctl disable --now prometheus >/dev/null 2>&1 || true; \
	  else false; fi; } || echo "prometheus not found, its tests are skipped: apt-get install prometheus" >&2

needs-cargo-deb: needs-rust
	@PATH="$(abspath target/tools/bin):$$PATH" $(CARGO) deb --version >/dev/null 2>&1 || \
	  $(CARGO) install cargo-deb --version 3.8.0 --locked --root target/tools

# Its tools are enough, it need not run here.
has-systemd:
	@command -v systemd-analyze >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -q && apt-get install -q -y --no-install-recommends systemd; \
	  else false; fi; } || echo "systemd not found, its tests are skipped: apt-get install systemd" >&2

# Some tests look at pages: of iris-loadgen, and the dashboard; without a browser they are skipped, and say so.
has-browser:
	@command -v chromium >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -q && apt-get install -q -y --no-install-recommends chromium; \
	  else false; fi; } || echo "chromium not found, its tests are skipped: apt-get install chromium" >&2

clean: ## Remove what was built
	$(CARGO) clean
