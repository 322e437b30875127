# SPDX-License-Identifier: BSD-2-Clause
# The benchmark: its guest (built bare, by frontend-drivers/guest.mk) and the program behind `sluice bench`.

BENCH_SRC := $(wildcard perf/*.c)
PROGRAMS  += $(B)/sluice-bench

$(B)/sluice-bench: $(call obj,$(BENCH_SRC)) $(LIBS)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

## perf-vhost    back-ends of their own against qemu-storage-daemon, testpmd and Open vSwitch, as ratios (6 minutes)
perf-vhost: deps
	@$(MAKE) --no-print-directory -s -j$(JOBS) build
	@perf/vhost.sh

.PHONY: perf-vhost

-include frontend-drivers/guest.mk
