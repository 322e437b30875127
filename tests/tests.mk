# SPDX-License-Identifier: BSD-2-Clause
# Tests, linters and fuzzers. A test is found by its name: tests/unit/test_*.c, tests/fuzz/fuzz_*.c,
# tests/integration/*.sh.

UNIT_SRC := $(wildcard tests/unit/test_*.c)
UNITS    := $(patsubst tests/unit/%.c,$(B)/unit/%,$(UNIT_SRC))
FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)
FUZZERS  := $(patsubst tests/fuzz/fuzz_%.c,%,$(FUZZ_SRC))
.SECONDARY: $(call obj,$(UNIT_SRC))

C_FILES   = $(shell git ls-files '*.c' '*.h')
# The host's own C files: guests are compiled bare, with flags of their own.
TIDY_FILES = $(filter-out perf/guest/% frontend-drivers/% tests/guest/%,$(filter %.c,$(C_FILES)))

# The guest drivers' logic that needs no machine, for the host.
$(B)/libfrontend.a: $(call obj,$(wildcard frontend-drivers/common/*.c))
	@mkdir -p $(@D)
	@rm -f $@
	$(AR) rcs $@ $^

$(B)/unit/%: $(B)/obj/tests/unit/%.o $(B)/libfrontend.a $(LIBS)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -Wl,--as-needed -o $@ $^ $(LDLIBS) -lcunit $(UNIT_LIBS)

# Of all tests the one that is linked with DPDK.
$(B)/unit/test_net_dpdk: $(B)/libnetdpdk.a $(LIBS)
$(B)/unit/test_net_dpdk: UNIT_LIBS = $(B)/libnetdpdk.a $(B)/libnetbridge.a $(DPDK_LIBS)

## check         everything: set-up, build with gcc and clang, linters, model, unit tests (also under
##               the sanitizers), corpora, integration; ends with the line N passed, N failed, N skipped
check: deps
	@tests/check.sh

## check-full    the same with the whole matrix of its longer tests (no limit of time)
check-full: deps
	@FULL=1 tests/check.sh

unit-build: $(UNITS)

## unit          the unit tests alone
unit: $(UNITS)
	@mkdir -p build/tmp; printf '%s\n' $(UNITS) | xargs -P$(JOBS) -n1 tests/unit/one.sh

## integration   the integration tests alone
integration: build
	@mkdir -p build/tmp; bad=0; for t in tests/integration/*.sh; do $$t || bad=1; done; exit $$bad

## model         the notification protocol, checked exhaustively (spin)
model:
	@tests/lint/check-model.sh

## check-deps    who may include what
check-deps:
	@tests/lint/check-deps.sh

## format-check  clang-format agrees (make format mends)
format-check:
	@clang-format --dry-run -Werror $(C_FILES)

format:
	@clang-format -i $(C_FILES)

## tidy          clang-tidy over the host's C files
tidy:
	@printf '%s\n' $(TIDY_FILES) | xargs -P$(JOBS) -n 4 tests/lint/tidy.sh

# ---------------------------------------------------------------- fuzzing: clang, objects of its own

FUZZ_CC     := clang
FUZZ_FLAGS  := -std=gnu11 -O1 -g $(WARN) -fno-strict-aliasing -fno-omit-frame-pointer -pthread \
               -fsanitize=address,undefined -fno-sanitize-recover=undefined -MMD -MP
FUZZ_LIBSRC := $(foreach f,$(FOLDERS),$(call src,$(f)))
FUZZ_OBJ    := $(patsubst %.c,build/fuzz/obj/%.o,$(FUZZ_LIBSRC))
.SECONDARY: $(patsubst %.c,build/fuzz/obj/%.o,$(FUZZ_SRC)) build/fuzz/obj/tests/fuzz/replay.o

build/fuzz/obj/%.o: %.c
	@mkdir -p $(@D)
	$(FUZZ_CC) $(CPPFLAGS) $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link -c -o $@ $<

build/fuzz/libsluice.a: $(FUZZ_OBJ)
	@rm -f $@
	ar rcs $@ $^

build/fuzz/fuzz_%: build/fuzz/obj/tests/fuzz/fuzz_%.o build/fuzz/libsluice.a
	$(FUZZ_CC) $(FUZZ_FLAGS) -fsanitize=fuzzer -o $@ $^ $(LDLIBS)

build/fuzz/replay_%: build/fuzz/obj/tests/fuzz/fuzz_%.o build/fuzz/obj/tests/fuzz/replay.o build/fuzz/libsluice.a
	$(FUZZ_CC) $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link -o $@ $^ $(LDLIBS)

## fuzz          every fuzz target in turn, FUZZ_S seconds each (default 60); finds go to build/fuzz/finds
fuzz: $(FUZZERS:%=build/fuzz/fuzz_%)
	@mkdir -p build/fuzz/finds; bad=0; \
	for f in $(FUZZERS); do \
		mkdir -p build/fuzz/corpus/$$f; \
		echo "== fuzz $$f for $(FUZZ_S) s"; \
		build/fuzz/fuzz_$$f -max_total_time=$(FUZZ_S) -timeout=10 -rss_limit_mb=4096 -print_final_stats=1 \
			-artifact_prefix=build/fuzz/finds/$$f- build/fuzz/corpus/$$f tests/fuzz/corpus/$$f \
			>build/fuzz/$$f.log 2>&1 || { bad=1; echo "FAIL fuzz $$f"; }; \
		tail -n 3 build/fuzz/$$f.log; \
	done; exit $$bad

fuzz-build: $(FUZZERS:%=build/fuzz/replay_%)

fuzz-replay: $(FUZZERS:%=build/fuzz/replay_%)
	@bad=0; for f in $(FUZZERS); do build/fuzz/replay_$$f tests/fuzz/corpus/$$f || bad=1; done; exit $$bad

# ---------------------------------------------------------------- programs of stock Linux guests

LINUX_PROGRAMS := $(patsubst %.c,build/%,$(wildcard tests/linux/*.c))
PROGRAMS       += $(LINUX_PROGRAMS)

$(LINUX_PROGRAMS): build/%: %.c
	@mkdir -p $(@D)
	$(CC) -D_GNU_SOURCE -std=gnu11 -O2 $(WARN) -static -o $@ $<

# A boot sector, as the BIOS loads it.
PROGRAMS += build/tests/linux/sector
build/tests/linux/sector: tests/linux/sector.S
	@mkdir -p $(@D)
	$(CC) -m32 -c -o $@.o $<
	ld -m elf_i386 -Ttext=0x7c00 --oformat=binary -o $@ $@.o

# Firmware that is a screen and a keyboard.
PROGRAMS += build/tests/linux/screen.bin
build/tests/linux/screen.bin: tests/linux/screen.S
	@mkdir -p $(@D)
	$(CC) -m32 -c -o $@.o $<
	ld -m elf_i386 -Ttext=0 --oformat=binary -o $@ $@.o

# ---------------------------------------------------------------- the laboratory (tests/lab/README.md)

## lab           prepare the laboratory: a machine with hardware virtualization, emulated
lab: build deps
	@tests/lab/lab.sh prepare

## lab-run       run one command in it: make lab-run CMD='build/sluice run ...' (LAB_S=seconds)
lab-run:
	@tests/lab/lab.sh run '$(subst ','\'',$(value CMD))'

## debian-root   a Debian root disk for guests in build/lab: nginx, fio, iperf3 (a minute; kept)
debian-root: lab
	@tests/lab/lab.sh debian-root

## demo-linux    Debian and nginx, unchanged, in Sluice: a page over the split and the emulated card, and wrk
demo-linux: lab
	@mkdir -p build/tmp
	@tests/linux/demo

.PHONY: lab lab-run debian-root demo-linux
.PHONY: check check-full unit unit-build fuzz-build integration model check-deps format-check format tidy fuzz fuzz-replay
