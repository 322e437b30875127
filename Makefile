# SPDX-License-Identifier: BSD-2-Clause
# Sluice: `make help` lists what can be made. Sources are found by folder; nothing is listed twice.

SHELL      := /bin/bash
CC         ?= gcc
ifeq ($(origin CC),default)
CC         := gcc
endif
PREFIX     ?= /usr/local
DESTDIR    ?=
SAN        ?=
FUZZ_S     ?= 60
empty      :=
comma      := ,
B          := build$(if $(SAN),/san-$(subst $(comma),-,$(SAN)))
VERSION    := 0.1.0

WARN       := -Wall -Wextra -Wshadow -Wstrict-prototypes -Werror
OPT        ?= -O2 -g
SANFLAGS   := $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer $(if $(findstring undefined,$(SAN)),-fno-sanitize-recover=undefined) $(if $(findstring thread,$(SAN)),-Wno-error=tsan -Wno-tsan))
CPPFLAGS   := -I. -D_GNU_SOURCE -DSLUICE_VERSION='"$(VERSION)"' -DSLUICE_LIBEXEC='"$(PREFIX)/libexec/sluice"'
CFLAGS     := -std=gnu11 $(OPT) $(WARN) $(SANFLAGS) -fno-strict-aliasing -pthread -MMD -MP
LDFLAGS    := $(SANFLAGS) -pthread
LDLIBS     := -luring -laio -lcjson

FOLDERS    := ring blk netbridge backend vmm
MAINS      := vmm/main.c
src         = $(filter-out $(MAINS),$(wildcard $(1)/*.c))
obj         = $(patsubst %.c,$(B)/obj/%.o,$(1))
LIBS       := $(foreach f,vmm backend netbridge blk ring,$(B)/lib$(f).a)

.DEFAULT_GOAL := build
include $(wildcard perf/perf.mk tests/tests.mk)

## build: the programs (build/sluice and its helpers)
build: $(B)/sluice $(PROGRAMS)

define folder_lib
$(B)/lib$(1).a: $(call obj,$(call src,$(1)))
	@mkdir -p $$(@D)
	@rm -f $$@
	$$(AR) rcs $$@ $$^
endef
$(foreach f,$(FOLDERS),$(eval $(call folder_lib,$(f))))

$(B)/sluice: $(call obj,vmm/main.c) $(LIBS)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(B)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

UNIT_SRC := $(wildcard tests/unit/test_*.c)
UNITS    := $(patsubst tests/unit/%.c,$(B)/unit/%,$(UNIT_SRC))
.SECONDARY: $(call obj,$(UNIT_SRC))

$(B)/unit/%: $(B)/obj/tests/unit/%.o $(LIBS)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lcunit

## unit: build and run the unit tests (SAN=address,undefined or SAN=thread for a sanitizer)
unit: $(UNITS)
	@mkdir -p build/tmp; bad=0; for t in $(UNITS); do $$t || bad=1; done; exit $$bad

## clean: remove build/
clean:
	rm -rf build

-include $(shell test -d build && find build -name '*.d' 2>/dev/null)
.PHONY: build unit clean
