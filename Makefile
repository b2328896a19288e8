# descent: build, test and run. `make help` lists what there is.

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
OPT.cover := -O0 -g --coverage
ifeq ($(FLAVOUR),clang)
CC := clang
CXX := clang++
endif

WARN := -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wdouble-promotion -Wundef -Werror
CWARN := $(WARN) -Wstrict-prototypes -Wmissing-prototypes
COMMON := -g -I. $(OPT.$(FLAVOUR)) -fPIC -pthread -ffp-contract=off -fno-math-errno -fno-trapping-math -D_GNU_SOURCE
CFLAGS_ALL = -std=c11 $(CWARN) $(COMMON) $(CFLAGS)
CXXFLAGS_ALL = -std=c++17 $(WARN) $(COMMON) -fno-exceptions -fno-rtti $(CXXFLAGS)
LDLIBS := -lmicrohttpd -ljansson -lsqlite3 -lm

# --- sources ---------------------------------------------------------------------------------------------------------
# What computes on numbers is written once and compiled twice, for float and for double (see service/kernel/real.h).
REAL := $(wildcard service/kernel/*.c) $(wildcard service/optim/rules/*.c) service/session/advance.c
ONCE := $(filter-out $(REAL),$(wildcard service/*/*.c storage/*.c api/*.c api/endpoint/*.c api/codec/*.c))
CXXS := $(wildcard api/codec/*.cc)
TESTS := $(wildcard tests/main.c tests/lib/*.c tests/contract/*.c tests/unit/*.c tests/scenario/*.c)

OBJ := $(REAL:%.c=$(B)/%.f32.o) $(REAL:%.c=$(B)/%.f64.o) $(ONCE:%.c=$(B)/%.o) $(CXXS:%.cc=$(B)/%.o)
LIB := $(filter-out $(B)/api/main.o,$(OBJ))
TESTOBJ := $(TESTS:%.c=$(B)/%.o)

.PHONY: all
all: build/descent ## build the server (build/descent)

build/descent: build/release/descent
	@ln -sf release/descent $@

$(B)/descent: $(OBJ)
	$(CXX) $(COMMON) -o $@ $^ $(LDLIBS)

$(B)/tests/descent-tests: $(LIB) $(TESTOBJ)
	$(CXX) $(COMMON) -o $@ $^ $(LDLIBS) -lcheck -lsubunit -lrt

$(B)/%.f32.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -DREAL_BITS=32 -MMD -MP -c -o $@ $<
$(B)/%.f64.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -DREAL_BITS=64 -MMD -MP -c -o $@ $<
$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<
$(B)/%.o: %.cc
	@mkdir -p $(@D)
	$(CXX) $(CXXFLAGS_ALL) -MMD -MP -c -o $@ $<

# What .incbin embeds, -MMD does not see.
$(B)/api/endpoint/openapi.o: api/openapi.json
$(B)/storage/sqlite_file.o: $(wildcard storage/schema/*.sql)

-include $(OBJ:.o=.d) $(TESTOBJ:.o=.d)

.PHONY: clean
clean: ## remove what was built
	rm -rf build
