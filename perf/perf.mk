# SPDX-License-Identifier: BSD-2-Clause
# The benchmark: its guest (built bare, by frontend-drivers/guest.mk) and the program behind `sluice bench`.

BENCH_SRC := $(wildcard perf/*.c)
PROGRAMS  += $(B)/sluice-bench

$(B)/sluice-bench: $(call obj,$(BENCH_SRC)) $(LIBS)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

.PHONY: perf-vhost perf perf-regress
PROGRAMS  += $(B)/perf/wire $(B)/perf/distance

# What is at the other end of a tap for monitors that are not this one.
$(B)/perf/wire: $(B)/obj/perf/wire/wire.o
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^

# How far apart the processors are just now.
$(B)/perf/distance: $(B)/obj/perf/distance/distance.o
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ -pthread

## perf          this monitor against QEMU with KVM, as ratios; JSON and a page in build/perf-monitors (25 minutes)
perf: deps
	@$(MAKE) --no-print-directory -s -j$(JOBS) build
	@perf/monitors.sh

## perf-regress  the working tree against a commit (AGAINST=HEAD), on the hot paths; fails after a significant loss (3 minutes)
AGAINST ?= HEAD
perf-regress: deps
	@$(MAKE) --no-print-directory -s -j$(JOBS) build
	@perf/regress.sh $(AGAINST)

## perf-vhost    back-ends of their own against qemu-storage-daemon, testpmd and Open vSwitch, as ratios (6 minutes)
perf-vhost: deps
	@$(MAKE) --no-print-directory -s -j$(JOBS) build
	@perf/vhost.sh


-include frontend-drivers/guest.mk
