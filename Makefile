# worker -- one small binary: a C core with Lua plugins.   `make help` lists the targets.
#
# Two commands do everything on a fresh Debian 12: `make run` and `make test`.  Each installs the
# packages that are missing (the lists below are the only place they are named), builds, and runs.

BUILD   ?= build
CC      ?= gcc
CFLAGS  ?= -O2 -g
PREFIX  ?= /usr
DESTDIR ?=

# Debian packages: to build, to run the specs, to lint.
PACKAGES_BUILD = gcc libc6-dev liblua5.4-dev libcurl4-openssl-dev lua-cjson lua-cjson-dev \
                 libyaml-dev libnghttp2-dev
PACKAGES_TEST  = $(PACKAGES_BUILD) lua-busted
PACKAGES_LINT  = $(PACKAGES_TEST) clang clang-format cppcheck lua-check valgrind

LUA_INC = /usr/include/lua5.4
LIBDIR := $(shell $(CC) -print-multiarch 2>/dev/null || echo x86_64-linux-gnu)
STATIC  = -l:liblua5.4.a -l:liblua5.4-cjson.a
LDLIBS  = $(STATIC) -lyaml -lcurl -lnghttp2 -lpthread -lm -ldl
WARN    = -Wall -Wextra -Wshadow -Wundef -Wwrite-strings -Wstrict-prototypes \
          -Wmissing-prototypes -Wredundant-decls -Wvla -Wformat=2
HARDEN  = -fstack-protector-strong -D_FORTIFY_SOURCE=2
ALL_CFLAGS = -std=c11 -D_GNU_SOURCE -Iinclude -I$(LUA_INC) $(WARN) $(CFLAGS) $(EXTRA)

SOURCES := $(wildcard src/*.c)
OBJECTS := $(SOURCES:src/%.c=$(BUILD)/%.o)
LUA     := $(shell find lua -name '*.lua' | sort)

.PHONY: all help
all: $(BUILD)/worker

$(BUILD)/worker: $(OBJECTS) $(BUILD)/embed.o
	@echo "  LD $@"; $(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/%.o: src/%.c | $(BUILD)
	@echo "  CC $<"; $(CC) $(ALL_CFLAGS) $(HARDENING) -MMD -MP -c -o $@ $<

$(BUILD)/embed.o: $(BUILD)/embed.c
	@$(CC) $(ALL_CFLAGS) -c -o $@ $<

# Every Lua file of the standard library, as bytes: module name, text, size.
$(BUILD)/embed.c: $(LUA) Makefile config/embed.sh | $(BUILD)
	@sh config/embed.sh $(LUA) > $@

$(BUILD):
	@mkdir -p $(BUILD)

-include $(OBJECTS:.o=.d)
