# worker -- one small binary: a C core with Lua plugins.  `make help` lists what can be made.
#
# Two commands do everything on a fresh Debian 12: `make run` and `make test`.  Each installs the
# packages that are missing (the lists below are the only place that names them), builds, and runs.

BUILD   ?= build
CFLAGS  ?= -O2 -g
PREFIX  ?= /usr
DESTDIR ?=

# Debian packages: to build and run, to run the specs, to lint.
PACKAGES_BUILD = gcc libc6-dev make liblua5.4-dev libcurl4-openssl-dev lua-cjson lua-cjson-dev \
                 libyaml-dev libnghttp2-dev libarchive-dev
PACKAGES_TEST  = $(PACKAGES_BUILD) lua-busted openssl strace python3-grpcio protobuf-compiler redis-tools
PACKAGES_CONTAINERS = $(PACKAGES_TEST) docker.io runc runsc busybox-static debootstrap
PACKAGES_LINT  = $(PACKAGES_TEST) clang libclang-rt-dev clang-format cppcheck lua-check valgrind

# Lua and lua-cjson are linked in, the rest comes from the system; libcurl and libarchive are loaded
# when they are needed (src/libcurl.c, src/libarchive.c).
LDLIBS  = -l:liblua5.4.a -l:liblua5.4-cjson.a -lyaml -lnghttp2 -lpthread -lm -ldl
WARN    = -Wall -Wextra -Wshadow -Wundef -Wwrite-strings -Wstrict-prototypes -Wmissing-prototypes \
          -Wredundant-decls -Wvla -Wformat=2
HARDEN ?= -fstack-protector-strong -D_FORTIFY_SOURCE=2 -fPIE
HARDEN_LD ?= -pie -Wl,-z,relro,-z,now
SANITIZE = -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined \
           -fno-sanitize-recover=undefined
ALL_CFLAGS = -std=c11 -D_GNU_SOURCE -Iinclude -I/usr/include/lua5.4 $(WARN) $(HARDEN) $(CFLAGS)

SOURCES := $(wildcard src/*.c)
OBJECTS := $(SOURCES:src/%.c=$(BUILD)/%.o)
LUA     := $(shell find lua -name '*.lua' | sort)
INSTALL  = sh config/need.sh

# README.md and what it leads to, which is installed as it lies here so that its links hold.
DOCS    := README.md Makefile src/README.md lua/worker/README.md lua/worker/engine.lua \
           config/worker.yaml config/worker.service \
           $(wildcard plugins/*/*/README.md) $(shell find config/jobs config/examples include/worker -type f)
UNIT     = $(DESTDIR)$(PREFIX)/lib/systemd/system/worker.service

# How long all specs may take: ten minutes on a machine of their own.
SPECS    = sh config/specs.sh $(LIMIT) env
LIMIT   ?= 3600

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.PHONY: all run test spec containers check lint asan valgrind faults fuzz cover bench install \
        uninstall clean help need-build need-test need-lint

all: need-build ## build build/worker (the default)
	@$(MAKE) --no-print-directory $(BUILD)/worker

run: all ## install what is missing, build, and run the sample jobs
	@sh config/demo.sh $(BUILD)/worker

test: need-test ## install what is missing, build, and run all specs
	@$(MAKE) --no-print-directory $(BUILD)/worker $(BUILD)/ground
	@$(SPECS) $(BUILD)/worker spec $(SPEC)

spec: $(BUILD)/worker $(BUILD)/ground ## run the specs in SPEC=path..., installing nothing
	@$(SPECS) $(BUILD)/worker spec $(SPEC)

containers: ## install docker and gVisor as well, and run the specs that need them
	@$(INSTALL) $(PACKAGES_CONTAINERS)
	@$(MAKE) --no-print-directory $(BUILD)/worker
	@sh config/python-image.sh >/dev/null
	@WORKER_CONTAINERS=1 $(BUILD)/worker spec $(or $(SPEC),spec/containers)

check: lint test asan ## lint, specs, specs under the sanitizers

lint: need-lint ## both compilers, clang-format, cppcheck, luacheck: silent or it fails
	@sh config/lint.sh

asan: need-test ## the specs under ASan and UBSan
	@$(MAKE) --no-print-directory BUILD=$(BUILD)/asan CFLAGS="$(SANITIZE)" HARDEN= HARDEN_LD= \
	  $(BUILD)/asan/worker $(BUILD)/asan/ground
	@$(SPECS) WORKER_BIN=$(BUILD)/asan/worker ASAN_OPTIONS=detect_leaks=1 \
	  $(BUILD)/asan/worker spec $(SPEC)

valgrind: need-lint $(BUILD)/worker $(BUILD)/ground ## the specs of the core under valgrind
	@sh config/valgrind.sh $(BUILD)/worker $(or $(SPEC),spec/core/*_spec.lua spec/worker/*_spec.lua)

faults: need-test ## let the n-th allocation or system call fail, for every n
	@$(MAKE) --no-print-directory BUILD=$(BUILD)/faults HARDEN= HARDEN_LD= \
	  CFLAGS="$(SANITIZE) -fno-optimize-sibling-calls -DWORKER_FAULTS" \
	  LDFLAGS="$$(sh config/faults.sh --wrap | tr '\n' ' ')" $(BUILD)/faults/worker
	@sh config/faults.sh $(BUILD)/faults/worker $(SCENARIO)

fuzz: need-lint ## hostile input to what reads the network, SECONDS=60 for each
	@sh config/fuzz.sh $(or $(SECONDS),60)

cover: need-test ## which lines of C the specs reach
	@$(MAKE) --no-print-directory BUILD=$(BUILD)/cover CFLAGS="-O0 -g --coverage" HARDEN= \
	  HARDEN_LD= $(BUILD)/cover/worker $(BUILD)/cover/ground
	@WORKER_BIN=$(BUILD)/cover/worker $(BUILD)/cover/worker spec $(SPEC) || true
	@cd $(BUILD)/cover && gcov -n -o . *.gcda 2>/dev/null | \
	  awk '/^File .*src\//{f=$$2} /^Lines/{if(f!=""){print $$2, f; f=""}}' | sort -u

bench: $(BUILD)/worker ## measure against the least C that does the same
	@sh bench/run.sh $(BUILD)/worker
	@$(BUILD)/worker spec bench/containers_spec.lua
	@sh bench/grpc.sh $(BUILD)/worker

install: $(BUILD)/worker ## install below DESTDIR and PREFIX
	install -D -m 755 $(BUILD)/worker $(DESTDIR)$(PREFIX)/bin/worker
	cd plugins && find . -type f | while read -r f; do \
	  install -D -m 644 "$$f" "$(DESTDIR)$(PREFIX)/share/worker/plugins/$$f"; done
	for f in $(DOCS); do install -D -m 644 "$$f" "$(DESTDIR)$(PREFIX)/share/doc/worker/$$f" || exit; done
	install -D -m 644 config/worker.service $(UNIT)
	sed -i 's|/usr/|$(PREFIX)/|' $(UNIT)

uninstall: ## remove what install put there
	rm -rf $(DESTDIR)$(PREFIX)/bin/worker $(DESTDIR)$(PREFIX)/share/worker \
	  $(DESTDIR)$(PREFIX)/share/doc/worker $(UNIT)

clean: ## remove what was built
	rm -rf $(BUILD)

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

need-build:
	@$(INSTALL) $(PACKAGES_BUILD)
need-test:
	@$(INSTALL) $(PACKAGES_TEST)
need-lint:
	@$(INSTALL) $(PACKAGES_LINT)

$(BUILD)/worker: $(OBJECTS) $(BUILD)/embed.o
	@echo "  LD $@"
	@$(CC) $(ALL_CFLAGS) $(HARDEN_LD) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/%.o: src/%.c | $(BUILD)
	@echo "  CC $<"
	@$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/embed.o: $(BUILD)/embed.c
	@$(CC) $(ALL_CFLAGS) -c -o $@ $<

# Every Lua file of the standard library, as bytes: module name, text, size.
$(BUILD)/embed.c: $(LUA) config/embed.sh | $(BUILD)
	@sh config/embed.sh $(LUA) > $@

# The ground floor has no Lua above it; a small C program checks it, run by a spec.
$(BUILD)/ground: spec/core/ground.c $(BUILD)/err.o $(BUILD)/buf.o $(BUILD)/clock.o $(BUILD)/loop.o \
                 $(BUILD)/log.o $(BUILD)/utf8.o
	@$(CC) $(ALL_CFLAGS) $(HARDEN_LD) $(LDFLAGS) -o $@ $^

$(BUILD):
	@mkdir -p $(BUILD)

-include $(OBJECTS:.o=.d)
