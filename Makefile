# descent: build, test and run. `make help` lists what there is. Recipes print what they make; V=1 shows the commands.

FLAVOUR ?= release
CC ?= gcc
CXX ?= g++
ifeq ($(origin CC),default)
CC := gcc
endif
ifeq ($(origin CXX),default)
CXX := g++
endif
PYTHON ?= /usr/bin/python3
PREFIX ?= /usr/local
VERSION := $(shell sed -n 's/^\#define DESCENT_VERSION "\(.*\)"/\1/p' service/core/version.h 2>/dev/null)
B := build/$(FLAVOUR)

# --- flavours: variables, not copied rules ---------------------------------------------------------------------------
OPT.release := -O3
OPT.scalar := -O3 -DDESCENT_SCALAR
OPT.clang := -O3
OPT.asan := -O1 -g -DDESCENT_SCALAR -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
OPT.tsan := -O1 -g -DDESCENT_SCALAR -fsanitize=thread
OPT.fuzz := -O1 -g -DDESCENT_SCALAR -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=all
OPT.cover := -O0 -g --coverage
# Can be killed at named points and break promises on purpose (service/core/point.h): for tests/fault alone.
OPT.points := -O1 -DDESCENT_SCALAR -DDESCENT_POINTS
ifneq ($(filter clang fuzz,$(FLAVOUR)),)
CC := clang
CXX := clang++
endif

WARN := -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wdouble-promotion -Wundef -Werror
CWARN := $(WARN) -Wstrict-prototypes -Wmissing-prototypes
COMMON := -g -I. $(OPT.$(FLAVOUR)) -fPIC -pthread -ffp-contract=off -fno-math-errno -fno-trapping-math -D_GNU_SOURCE
CFLAGS_ALL = -std=c11 $(CWARN) $(COMMON) $(CFLAGS)
CXXFLAGS_ALL = -std=c++17 $(WARN) $(COMMON) -fno-exceptions -fno-rtti $(CXXFLAGS)
# Bound before the first request, read-only from then on; the same bytes in whatever folder it is built.
LDFLAGS_ALL := -Wl,-z,relro,-z,now -Wl,--build-id=none
LDLIBS := -lmicrohttpd -lgnutls -lzstd -lz -ljansson -lsqlite3 -lopenblas -lm

ifeq ($(V),1)
Q :=
else
Q := @
endif
say = @printf '  %-7s %s\n' $(1) $(2)

# --- sources ---------------------------------------------------------------------------------------------------------
# What computes on numbers is written once and compiled twice, for float and for double (see service/kernel/real.h).
REAL := $(wildcard service/kernel/*.c) $(wildcard service/optim/rules/*.c) service/optim/whole.c \
        service/session/advance.c service/session/mean.c service/session/estimate.c
ONCE := $(filter-out $(REAL),$(wildcard service/*/*.c service/optim/schedules/*.c storage/*.c api/*.c api/endpoint/*.c api/codec/*.c \
        api/coding/*.c))
CXXS := $(wildcard api/codec/*.cc)
TESTS := $(wildcard tests/main.c tests/lib/*.c tests/contract/*.c tests/unit/*.c tests/scenario/*.c tests/fault/*.c)

POINTS := $(if $(filter points,$(FLAVOUR)),tests/fault/kill/point.c)
OBJ := $(POINTS:%.c=$(B)/%.o) $(REAL:%.c=$(B)/%.f32.o) $(REAL:%.c=$(B)/%.f64.o) $(ONCE:%.c=$(B)/%.o) $(CXXS:%.cc=$(B)/%.o)
LIB := $(filter-out $(B)/api/main.o,$(OBJ))
TESTOBJ := $(TESTS:%.c=$(B)/%.o)

ifneq ($(findstring s,$(filter-out --%,$(firstword $(MAKEFLAGS)))),)
say :=
endif

.PHONY: all
all: build/descent ## build the server, build/descent

build/descent: build/release/descent
	@ln -sf release/descent $@

$(B)/descent: $(OBJ)
	$(call say,LINK,$@)
	$(Q)$(CXX) $(COMMON) $(LDFLAGS_ALL) -o $@ $^ $(LDLIBS)

$(B)/tests/descent-tests: $(LIB) $(TESTOBJ)
	$(call say,LINK,$@)
	$(Q)$(CXX) $(COMMON) -o $@ $^ $(LDLIBS) -lcheck -lsubunit -lrt

$(B)/%.f32.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,"$< (float)")
	$(Q)$(CC) $(CFLAGS_ALL) -DREAL_BITS=32 -MMD -MP -c -o $@ $<
$(B)/%.f64.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,"$< (double)")
	$(Q)$(CC) $(CFLAGS_ALL) -DREAL_BITS=64 -MMD -MP -c -o $@ $<
$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<
$(B)/%.o: %.cc
	@mkdir -p $(@D)
	$(call say,CXX,$<)
	$(Q)$(CXX) $(CXXFLAGS_ALL) -MMD -MP -c -o $@ $<

# In f32 the squares are exact in double, so a fused multiply-add gives the same bits and saves an instruction.
$(B)/service/kernel/reduce.f32.o: CFLAGS += -ffp-contract=fast

# What .incbin embeds, -MMD does not see.
$(B)/api/endpoint/openapi.o: api/openapi.json
$(B)/storage/sqlite_file.o: $(wildcard storage/schema/*.sql)

-include $(OBJ:.o=.d) $(TESTOBJ:.o=.d) $(B)/tests/bits.d

# --- what a new machine lacks ----------------------------------------------------------------------------------------
DEPS_BUILD := gcc g++ make libmicrohttpd-dev libjansson-dev libsqlite3-dev libopenblas-dev libxxhash-dev libfast-float-dev \
              libgnutls28-dev libzstd-dev zlib1g-dev
DEPS_DEMO := $(DEPS_BUILD) python3 python3-numpy python3-sklearn python3-matplotlib
DEPS_CHECK := $(DEPS_DEMO) check libsubunit-dev curl openssl slowhttptest zstd nodejs python3-jsonschema
DEPS_CLANG := clang clang-format libclang-rt-14-dev
DEPS_CONTAINER := buildah podman runc containernetworking-plugins debootstrap python3 python3-numpy
DEPS_DEB := $(DEPS_BUILD) dpkg-dev
DEPS_PACKAGE := $(DEPS_CONTAINER) $(DEPS_DEB) lintian systemd zsh fish
DEPS_GOLDEN := python3 python3-numpy python3-torch

# $(call install,PACKAGES): installs those that are missing, as root or through sudo; asks nothing when all are there.
define install
@missing=$$(for p in $(1); do dpkg-query -W -f '$${db:Status-Status}' $$p 2>/dev/null | grep -qx installed || echo $$p; done); \
if [ -n "$$missing" ]; then \
    echo "installing:" $$missing; \
    as=; [ "$$(id -u)" = 0 ] || as=sudo; \
    $$as apt-get update -qq && \
    $$as env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
fi
endef

.PHONY: deps deps-demo deps-check deps-clang deps-container
deps: ## install what the build needs
	$(call install,$(DEPS_BUILD))
deps-demo:
	$(call install,$(DEPS_DEMO))
deps-check:
	$(call install,$(DEPS_CHECK))
	@tests/lib/promtool.sh
deps-clang:
	$(call install,$(DEPS_CLANG))
deps-container:
	$(call install,$(DEPS_CONTAINER))

# --- running ---------------------------------------------------------------------------------------------------------
.PHONY: demo gallery svrg-demo staleness-demo federated-demo serve
demo: deps-demo ## train a classifier of handwritten digits through a server of its own (installs what is missing)
	@$(MAKE) --no-print-directory build/descent
	@clients/examples/with_server.sh $(PYTHON) clients/examples/digits.py --picture build/demo/loss.png

gallery: deps-demo ## train one small network with every rule and draw all the loss curves in one picture
	@$(MAKE) --no-print-directory build/descent
	@clients/examples/with_server.sh $(PYTHON) clients/examples/gallery.py --picture build/gallery/gallery.png

svrg-demo: deps-demo ## SVRG against SGD at its best: four worker processes, the distance to the optimum, one picture
	@$(MAKE) --no-print-directory build/descent
	@clients/examples/with_server.sh $(PYTHON) clients/examples/svrg.py --picture build/svrg/svrg.png

staleness-demo: deps-demo ## late gradients of eight workers, one of them slow, and what helps
	@$(MAKE) --no-print-directory build/descent
	@clients/examples/with_server.sh $(PYTHON) clients/examples/staleness.py --picture build/staleness/staleness.png

federated-demo: deps-demo ## ten clients that keep their data train one model: FedAvg, FedAdam, FedYogi
	@$(MAKE) --no-print-directory build/descent
	@clients/examples/with_server.sh $(PYTHON) clients/examples/federated.py --picture build/federated/federated.png

serve: deps ## run a server on 127.0.0.1:8080 with ./descent-data
	@$(MAKE) --no-print-directory build/descent
	build/descent serve

# --- installing and packaging ----------------------------------------------------------------------------------------
# A distribution says PREFIX=/usr SYSCONFDIR=/etc UNITDIR=/lib/systemd/system; DESTDIR is put before each.
SYSCONFDIR ?= $(if $(filter /usr,$(PREFIX)),/etc,$(PREFIX)/etc)
UNITDIR ?= $(PREFIX)/lib/systemd/system
PACKAGE := build/package
# FILE:MODE:TARGET. `uninstall` removes what `install` puts.
INSTALLED = build/release/descent:755:$(PREFIX)/bin/descent \
            api/descent.1:644:$(PREFIX)/share/man/man1/descent.1 \
            $(PACKAGE)/descent.service:644:$(UNITDIR)/descent.service \
            $(PACKAGE)/descent.socket:644:$(UNITDIR)/descent.socket \
            api/package/descent.sysusers:644:$(PREFIX)/lib/sysusers.d/descent.conf \
            $(PACKAGE)/descent.bash:644:$(PREFIX)/share/bash-completion/completions/descent \
            $(PACKAGE)/descent.zsh:644:$(PREFIX)/share/zsh/$(if $(filter /usr,$(PREFIX)),vendor-completions,site-functions)/_descent \
            $(PACKAGE)/descent.fish:644:$(PREFIX)/share/fish/vendor_completions.d/descent.fish
CONFIG = $(DESTDIR)$(SYSCONFDIR)/descent/descent.conf

.PHONY: install uninstall package deb
install: ## install the binary, man page, systemd units, shell completions, a file of options (PREFIX=/usr/local)
	@$(MAKE) --no-print-directory build/descent package
	@set -e; for entry in $(INSTALLED); do target=$(DESTDIR)$${entry##*:} mode=$${entry#*:}; \
	    echo "  INSTALL $$target"; install -D -m "$${mode%:*}" "$${entry%%:*}" "$$target"; done; \
	if [ -e "$(CONFIG)" ]; then echo "  KEEP    $(CONFIG)"; else \
	    echo "  INSTALL $(CONFIG)"; install -D -m 644 $(PACKAGE)/descent.conf "$(CONFIG)"; fi

uninstall: ## remove them, but for options that were changed
	@$(MAKE) --no-print-directory build/descent package
	@for entry in $(INSTALLED); do rm -f "$(DESTDIR)$${entry##*:}"; done; \
	if [ ! -e "$(CONFIG)" ] || cmp -s $(PACKAGE)/descent.conf "$(CONFIG)"; then rm -f "$(CONFIG)"; else echo "  KEEP    $(CONFIG)"; fi; \
	rmdir "$(DESTDIR)$(SYSCONFDIR)/descent" 2>/dev/null || true

# What is made of templates and of `descent --help`; anew each time, for the folders may be others.
package: build/descent
	@mkdir -p $(PACKAGE)
	$(Q)for unit in descent.service descent.socket; do \
	    sed 's|@bindir@|$(PREFIX)/bin|g; s|@sysconfdir@|$(SYSCONFDIR)|g' api/package/$$unit >$(PACKAGE)/$$unit || exit 1; done
	$(Q)build/descent --help >$(PACKAGE)/help
	$(Q)for shell in bash zsh fish; do \
	    awk -v shell=$$shell -f api/package/help.awk -f api/package/completion.awk $(PACKAGE)/help >$(PACKAGE)/descent.$$shell || exit 1; done
	$(Q)awk -v data=/var/lib/descent -f api/package/help.awk -f api/package/conf.awk $(PACKAGE)/help >$(PACKAGE)/descent.conf

deb: ## build a Debian package, build/deb/descent_VERSION_ARCH.deb
	$(call install,$(DEPS_DEB))
	@$(MAKE) --no-print-directory build/descent
	@api/package/deb/build.sh

# --- checks ----------------------------------------------------------------------------------------------------------
TESTING = DESCENT_BINARY=$(CURDIR)/$(B)/descent PYTHON=$(PYTHON)

.PHONY: check check-suites check-scripts check-asan check-tsan check-scalar check-clang tidy format
check: deps-check ## pass every test (installs what is missing)
	@$(MAKE) --no-print-directory build/descent check-suites check-scripts

# The C tests of a flavour.
check-suites: $(B)/descent $(B)/tests/descent-tests $(B)/tests/fuzz/replay
	@$(TESTING) tests/run.sh $(B)/tests/descent-tests $(SUITES)
	@$(if $(SUITES),:,$(B)/tests/fuzz/replay)

# What drives the server from outside, in other languages.
check-scripts: build/descent
	@$(TESTING) tests/scenario/scripts.sh

check-asan: deps-check ## the C tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@$(MAKE) --no-print-directory FLAVOUR=asan check-suites

# In these no second thread ever starts (strace says so), and some take minutes under ThreadSanitizer.
ONE_THREAD := store_folder store_faults store_verify store_care json_numbers json_document optimizers coding codecs

check-tsan: deps-check ## the C tests under ThreadSanitizer, but those of one thread
	@$(MAKE) --no-print-directory FLAVOUR=tsan check-suites \
	    SUITES="$(filter-out $(ONE_THREAD),$(shell sed -n 's/^SUITE(\([a-z_0-9]*\))/\1/p' tests/suites.def))"

check-clang: deps-check deps-clang ## build everything with clang, warnings are errors, and run the C tests
	@$(MAKE) --no-print-directory FLAVOUR=clang check-suites

.PHONY: load
load: deps-check ## 64 workers on one session of a million parameters, a minute synchronous and a minute not
	@$(MAKE) --no-print-directory build/descent
	@DESCENT_BINARY=$(CURDIR)/build/descent $(PYTHON) tests/scenario/workers_load.py --seconds 60

.PHONY: soak
soak: deps-check ## ten minutes of mixed load with kills and restarts: what grows, what is lost (SOAK_SECONDS=600, SOAK_SECURE=1)
	@$(MAKE) --no-print-directory build/descent
	@DESCENT_BINARY=$(CURDIR)/build/descent $(PYTHON) tests/soak/soak.py

# Redocly's linter comes from npm, into build/ alone. A node of one's own brings npm; else Debian's is installed.
.PHONY: check-contract deps-contract
check-contract: deps-contract ## lint api/openapi.json, drive the server with requests made from it: a minute
	@$(MAKE) --no-print-directory build/descent
	@$(TESTING) tests/contract/run.sh

deps-contract: deps-check
	$(if $(shell command -v npm),,$(call install,nodejs npm))

.PHONY: check-fault check-fault-long
check-fault: deps-check ## disks, power, memory and processes that fail: the short form, about a minute (FAULTS="names")
	@$(MAKE) --no-print-directory build/descent $(B)/tests/descent-tests
	@$(TESTING) DESCENT_TESTS=$(CURDIR)/$(B)/tests/descent-tests tests/fault/run.sh short $(FAULTS)

check-fault-long: deps-check ## the long form, about half an hour
	@$(MAKE) --no-print-directory build/descent $(B)/tests/descent-tests
	@$(TESTING) DESCENT_TESTS=$(CURDIR)/$(B)/tests/descent-tests tests/fault/run.sh long $(FAULTS)

# The same bits with and without vector clones, and from another compiler: a digest of a long run over every rule.
check-scalar: deps-check deps-clang ## compare the bits of vector, scalar and clang builds; C tests of the scalar build
	@for flavour in release scalar clang; do $(MAKE) --no-print-directory FLAVOUR=$$flavour build/$$flavour/tests/bits || exit 1; done
	@set -e; for flavour in release scalar clang; do build/$$flavour/tests/bits | tee build/$$flavour/bits.txt | tail -n 1; done; \
	cmp build/release/bits.txt build/scalar/bits.txt; cmp build/release/bits.txt build/clang/bits.txt; echo "the same bits: vector, scalar, clang"
	@$(MAKE) --no-print-directory FLAVOUR=scalar check-suites SUITES="optimizers golden updates update_numbers dtype"

$(B)/tests/bits: $(LIB) $(B)/tests/bits.o $(B)/tests/lib/rules.o $(B)/tests/lib/packings.o $(B)/tests/lib/testing.o
	$(call say,LINK,$@)
	$(Q)$(CXX) $(COMMON) -o $@ $^ $(LDLIBS)

# What a process that dies at any moment leaves behind; tests/fault/ says more.
.PHONY: check-kill check-kill-long check-seeded
check-kill: deps-check ## kill the server at every named point and at random moments under load: 45 s
	@$(MAKE) --no-print-directory FLAVOUR=points build/points/descent
	@PYTHON=$(PYTHON) DESCENT_BINARY=$(CURDIR)/build/points/descent tests/fault/kills.sh short

check-kill-long: deps-check ## the same with more than 500 kills: about six minutes
	@$(MAKE) --no-print-directory FLAVOUR=points build/points/descent
	@PYTHON=$(PYTHON) DESCENT_BINARY=$(CURDIR)/build/points/descent tests/fault/kills.sh long

check-seeded: deps-check ## break one promise after the other and see that a test notices: two minutes
	@$(MAKE) --no-print-directory FLAVOUR=points build/points/descent build/points/tests/descent-tests
	@$(PYTHON) tests/fault/seeded.py

BENCHOBJ := $(patsubst %.c,$(B)/%.o,$(wildcard tests/bench/*.c))
-include $(BENCHOBJ:.o=.d)

$(B)/tests/bench/bench: $(LIB) $(BENCHOBJ)
	$(call say,LINK,$@)
	$(Q)$(CXX) $(COMMON) -o $@ $^ $(LDLIBS)

.PHONY: bench
bench: deps-check ## print figures beside their limits, with PyTorch if it is installed (BENCH_SECONDS=60, BENCH="kernel many")
	@$(MAKE) --no-print-directory build/descent build/release/tests/bench/bench
	@PYTHON=$(PYTHON) tests/bench/run.sh $(BENCH)

.PHONY: rules-table
rules-table: deps-check ## write the README's table of rules from the catalogue and the last `make bench`
	@$(MAKE) --no-print-directory build/descent
	@clients/examples/with_server.sh $(PYTHON) tests/bench/rules_table.py

# Seconds of each target, and how many run at a time.
FUZZ_SECONDS ?= 60
FUZZ_JOBS ?= $(shell nproc)
FUZZERS := $(shell sed -n 's/^TARGET(\([a-z_0-9]*\))/\1/p' tests/fuzz/targets.def 2>/dev/null)
FUZZ ?= $(FUZZERS)
.PHONY: fuzz fuzz-long
fuzz: deps-check deps-clang ## fuzz every parser for FUZZ_SECONDS (60) each, under ASan and UBSan (FUZZ="json headers")
	@$(MAKE) --no-print-directory FLAVOUR=fuzz fuzz-run

fuzz-long: ## the same for half an hour each
	@$(MAKE) --no-print-directory fuzz FUZZ_SECONDS=1800

.PHONY: fuzz-run
fuzz-run: $(FUZZ:%=build/fuzz/tests/fuzz/%)
	@FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_JOBS=$(FUZZ_JOBS) tests/fuzz/run.sh $(FUZZ)

.SECONDARY: $(FUZZERS:%=build/fuzz/tests/fuzz/fuzz_%.o)
build/fuzz/tests/fuzz/%: build/fuzz/tests/fuzz/fuzz_%.o $(LIB)
	$(call say,LINK,$@)
	$(Q)$(CXX) $(COMMON) -fsanitize=fuzzer -o $@ $^ $(LDLIBS)

# All targets in one program, over the inputs that are kept. The function of each gets the name of its target.
REPLAYED := $(FUZZERS:%=$(B)/tests/fuzz/%.replay.o)
$(B)/tests/fuzz/%.replay.o: tests/fuzz/fuzz_%.c
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CFLAGS_ALL) -DLLVMFuzzerTestOneInput=fuzz_$* -MMD -MP -c -o $@ $<
-include $(REPLAYED:.o=.d) $(B)/tests/fuzz/replay.d $(FUZZERS:%=$(B)/tests/fuzz/fuzz_%.d)

$(B)/tests/fuzz/replay: $(LIB) $(REPLAYED) $(B)/tests/fuzz/replay.o
	$(call say,LINK,$@)
	$(Q)$(CXX) $(COMMON) -o $@ $^ $(LDLIBS)

.PHONY: golden
golden: ## generate the golden traces again, from PyTorch and a transcription of the rules
	$(call install,$(DEPS_GOLDEN))
	$(PYTHON) tests/golden/generate.py
	$(PYTHON) tests/golden/schedules.py

.PHONY: container
container: deps deps-container ## build the image without a Docker engine and test a container of it (installs what is missing)
	@$(MAKE) --no-print-directory build/descent
	@PYTHON=$(PYTHON) tests/container/run.sh

.PHONY: check-deb
check-deb: ## install, upgrade, remove and purge the Debian package where no systemd runs and under one; judge the units
	$(call install,$(DEPS_PACKAGE))
	@$(MAKE) --no-print-directory deb
	@$(PYTHON) tests/scenario/install.py --all
	@PYTHON=$(PYTHON) DEB_SYSTEMD=$(DEB_SYSTEMD) tests/container/deb.sh

tidy: deps-clang ## layers, tables against files, dead symbols, formatting
	@$(MAKE) --no-print-directory build/descent $(B)/tests/descent-tests $(B)/tests/bits $(B)/tests/bench/bench $(B)/tests/fuzz/replay
	@tests/tidy.sh $(B)

format: deps-clang ## format the C sources
	clang-format -i $$(git ls-files '*.c' '*.h' '*.cc')

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

.PHONY: clean
clean: ## remove what was built
	rm -rf build
