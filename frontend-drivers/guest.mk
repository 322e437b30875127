# SPDX-License-Identifier: BSD-2-Clause
# Bare guests: the runtime and drivers of frontend-drivers/freestanding, ring/, and one program each.
# Never with sanitizers, whatever the rest is built with.

GUEST_B      := build/guest-obj
GUEST_CFLAGS := -std=gnu11 -O2 -g -msse2 -ffreestanding -mno-red-zone -fno-pic -fno-pie -mcmodel=small \
		-fno-stack-protector -fcf-protection=none -fno-asynchronous-unwind-tables \
		-fno-strict-aliasing -ffunction-sections -fdata-sections $(WARN) -I. -MMD -MP
GUEST_LINK   := -nostdlib -static -Wl,--build-id=none -Wl,--gc-sections -Wl,-z,noexecstack \
		-Wl,-T,frontend-drivers/freestanding/guest.ld

guest_obj     = $(patsubst %.S,$(GUEST_B)/%.o,$(patsubst %.c,$(GUEST_B)/%.o,$(1)))
GUEST_COMMON := $(call guest_obj,$(wildcard frontend-drivers/freestanding/*.[cS] \
		frontend-drivers/common/*.c ring/*.c))

$(GUEST_B)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(GUEST_CFLAGS) -c -o $@ $<

$(GUEST_B)/%.o: %.S
	@mkdir -p $(@D)
	$(CC) $(GUEST_CFLAGS) -c -o $@ $<

# guest_program(target, sources)
define guest_program
$(1): $(call guest_obj,$(2)) $(GUEST_COMMON) frontend-drivers/freestanding/guest.ld
	@mkdir -p $$(@D)
	$$(CC) $$(GUEST_LINK) -o $$@ $$(filter %.o,$$^)
endef

TEST_GUESTS := $(patsubst tests/guest/%.c,build/tests/guest/%.elf,$(wildcard tests/guest/*.c))

$(eval $(call guest_program,build/perf/guest.elf,$(wildcard perf/guest/*.c)))
$(foreach g,$(TEST_GUESTS),$(eval $(call guest_program,$(g),$(patsubst build/tests/guest/%.elf,tests/guest/%.c,$(g)))))

PROGRAMS += build/perf/guest.elf $(TEST_GUESTS)
