# make         the program, with its page where npm is there (WEB=no: without)
# make demo    two nodes on this machine, one killed and healed, in two minutes
# make test    everything that is checked
# make chaos   kills, cuts, losses, full disks, and what they must end with
# make install PREFIX=/usr/local
# make deb     a Debian package

GO      ?= go
PREFIX  ?= /usr/local
DESTDIR ?=
# Where systemd looks for units; empty installs none.
UNITDIR ?= $(PREFIX)/lib/systemd/system
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)
LDFLAGS := -s -w $(if $(VERSION),-X github.com/twindvr/twindvr/pkg/cli.release=$(VERSION))
# go test gives up on a package after this long.
TIMEOUT ?= 15m
# Further flags of go test.
TESTFLAGS ?=
# How many packages are tested at once: their tests wait more than they work.
PACKAGES ?= $(shell echo $$((2 * $$(nproc))))

.PHONY: all deb deb-test install-files build page web web-test demo test check bench bench-profile bench-compare chaos generate clean install uninstall deps fuzz

all: build

build: page
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/twindvr ./cmd/twindvr

# The page that the program embeds, built from web/ by npm. Without it the program
# has a small one that says how to get it: go build needs neither npm nor node.
PAGE  := pkg/serve/web/dist/index.html.gz
NPM   ?= npm
WEB   ?= $(if $(shell command -v $(NPM) 2>/dev/null),yes,no)

web: $(PAGE)
	@:

$(PAGE): $(wildcard web/src/*) web/build.mjs web/node_modules/.package-lock.json
	$(NPM) --prefix web run check
	$(NPM) --prefix web run build

web/node_modules/.package-lock.json: web/package-lock.json
	$(NPM) --prefix web ci --omit=dev --ignore-scripts --no-audit --no-fund
	@touch $@

# What only its tests need.
web/node_modules/dashjs/package.json: web/node_modules/.package-lock.json
	$(NPM) --prefix web install --ignore-scripts --no-audit --no-fund
	@touch $@

page:
ifeq ($(WEB),yes)
	@$(MAKE) --no-print-directory web || echo 'make: the page could not be built; the program gets one that says how to' >&2
endif

# The page in a real browser, against real nodes; says so where there is none.
web-test: web/node_modules/dashjs/package.json web build
	$(NPM) --prefix web test

demo: build
	scripts/demo.sh

# What the tests need and the machine may lack: ffmpeg, from Debian's packages.
deps:
	@scripts/deps.sh

# Real nodes, a real-time source, random kills: the rest of the tests gives way to
# these, else two cores would starve the source. They mostly wait.
REALTIME := ./pkg/node

test: deps check
	@status=0; out=$$(mktemp); \
	$(GO) test -race -parallel 4 -timeout $(TIMEOUT) $(TESTFLAGS) $(REALTIME) >$$out 2>&1 & \
	nice -n 10 $(GO) test -race -p $(PACKAGES) -timeout $(TIMEOUT) $(TESTFLAGS) $$($(GO) list ./... | grep -v '/pkg/node$$') || status=1; \
	wait $$! || status=1; \
	cat $$out; rm -f $$out; \
	exit $$status

check:
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

# What it costs, beside programs that do the same (scripts/bench/README.md): make
# bench [BENCHFLAGS='-only udp,file -runs 5'] [FIGURES=scripts/bench].
bench: build
	@scripts/bench.sh $(if $(FIGURES),-figures $(FIGURES))

# What the CPU time and the memory of recording twenty streams go into.
bench-profile: build
	@scripts/bench.sh -profile bench/profile -duration 60s

# The benchmarks of the hot paths, of a revision and of this tree: make
# bench-compare REV=HEAD~1 [BENCH=Demuxer] [COUNT=6] [BENCHTIME=0.3s].
bench-compare:
	@COUNT='$(COUNT)' BENCHTIME='$(BENCHTIME)' BENCH='$(BENCH)' scripts/bench-compare.sh '$(REV)'

# The fault suite (CHAOS.md): make chaos [SCENARIO=name,…] [SEED=n] [TIME=1m]
# [BITRATE=bit/s] [JOBS=n] [SHORT=1] [FIGURES=CHAOS.md] [CHAOSFLAGS=…].
chaos: build deps
	@mkdir -p chaos
	@$(GO) build -o chaos/chaos ./scripts/chaos
	@chaos/chaos $(if $(SCENARIO),-scenario '$(SCENARIO)') $(if $(SEED),-seed $(SEED)) $(if $(TIME),-time $(TIME)) \
		$(if $(BITRATE),-bitrate $(BITRATE)) $(if $(JOBS),-jobs $(JOBS)) $(if $(SHORT),-short) \
		$(if $(FIGURES),-figures $(FIGURES)) $(CHAOSFLAGS)

# Man pages and completions are kept in the repository; CI fails if they are
# not what this makes.
generate: build
	rm -f man/*.1 completions/*
	bin/twindvr generate man man
	bin/twindvr generate completions completions

# Every fuzz target for FUZZTIME each.
FUZZTIME ?= 10s
# 1/3: the second third of them; empty: all.
FUZZPART ?=
fuzz:
	@scripts/fuzz.sh $(FUZZTIME) $(FUZZPART)

# The units: the service, and jobs by timers for those who run no service.
UNITS := $(wildcard scripts/twindvr*.service scripts/twindvr*.timer)
BINARY ?= bin/twindvr

install: build install-files

# What install installs, of a program that is built.
install-files:
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/man/man5
	install -m 0755 $(BINARY) $(DESTDIR)$(PREFIX)/bin/twindvr
	install -m 0644 man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 0644 man/*.5 $(DESTDIR)$(PREFIX)/share/man/man5
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	install -m 0644 completions/twindvr.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/twindvr
	install -d $(DESTDIR)$(PREFIX)/share/zsh/site-functions
	install -m 0644 completions/_twindvr $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_twindvr
	install -d $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	install -m 0644 completions/twindvr.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/twindvr.fish
ifneq ($(UNITDIR),)
	install -d $(DESTDIR)$(UNITDIR)
	for unit in $(UNITS); do \
		sed 's|/usr/local/bin/|$(PREFIX)/bin/|' $$unit > $(DESTDIR)$(UNITDIR)/$$(basename $$unit) && \
		chmod 0644 $(DESTDIR)$(UNITDIR)/$$(basename $$unit) || exit 1; \
	done
endif

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/twindvr
	rm -f $(DESTDIR)$(PREFIX)/share/man/man1/twindvr.1 $(DESTDIR)$(PREFIX)/share/man/man1/twindvr-*.1
	rm -f $(DESTDIR)$(PREFIX)/share/man/man5/twindvr.conf.5
	rm -f $(DESTDIR)$(PREFIX)/share/bash-completion/completions/twindvr
	rm -f $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_twindvr
	rm -f $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/twindvr.fish
	rm -f $(addprefix $(DESTDIR)$(UNITDIR)/,$(notdir $(UNITS)))

# The Debian package of this machine's architecture, in bin/.
deb: page
	@scripts/deb/build.sh bin

# It is installed, upgraded, removed and purged in a fresh system (debootstrap; needs
# root), and looked at by lintian.
deb-test:
	@scripts/deb/test.sh

clean:
	rm -rf bin demo bench chaos pkg/serve/web/dist web/node_modules
