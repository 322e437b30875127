# SPDX-License-Identifier: BSD-2-Clause
# The benchmark: its guest (built bare, by frontend-drivers/guest.mk) and the program behind `sluice bench`.

BENCH_SRC := $(wildcard perf/*.c)
PROGRAMS  += $(B)/sluice-bench

$(B)/sluice-bench: $(call obj,$(BENCH_SRC)) $(LIBS)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

-include frontend-drivers/guest.mk
