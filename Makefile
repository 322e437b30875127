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
VERSION    := 0.1.0
JOBS       := $(shell nproc 2>/dev/null || echo 2)
empty      :=
comma      := ,
# Everything made goes below build/; a sanitizer's objects into a folder of their own.
B          := build$(if $(SAN),/san-$(subst $(comma),-,$(SAN)))

WARN       := -Wall -Wextra -Wshadow -Wstrict-prototypes -Werror
OPT        ?= -O2 -g
SANFLAGS   := $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer) \
              $(if $(findstring undefined,$(SAN)),-fno-sanitize-recover=undefined) \
              $(if $(findstring thread,$(SAN)),$(if $(findstring clang,$(CC)),,-Wno-tsan))
CPPFLAGS   := -I. -D_GNU_SOURCE -DSLUICE_VERSION='"$(VERSION)"' -DSLUICE_LIBEXEC='"$(PREFIX)/libexec/sluice"'
CFLAGS     := -std=gnu11 $(OPT) $(WARN) $(SANFLAGS) -fno-strict-aliasing -pthread -MMD -MP
LDFLAGS    := $(SANFLAGS) -pthread
LDLIBS     := -luring -laio -lcjson -lz -lzstd -lm

FOLDERS    := ring blk netbridge backend vmm
MAINS      := vmm/main.c vmm/screen_main.c vmm/screen_client.c vmm/screen_watch.c vmm/screen_keys.c vmm/vnc_main.c backend/blkd_main.c backend/bridge_main.c
# What needs DPDK is a library of its own: the monitor is not linked with it.
DPDK_SRC   := $(wildcard netbridge/dpdk*.c)
DPDK_LIBS   = $(shell pkg-config --libs libdpdk 2>/dev/null)
src         = $(filter-out $(MAINS) $(DPDK_SRC),$(wildcard $(1)/*.c))
obj         = $(patsubst %.c,$(B)/obj/%.o,$(1))
LIBS       := $(foreach f,vmm backend netbridge blk ring,$(B)/lib$(f).a)

# Debian 12 packages: to build, to test, to measure.
PACKAGES   := gcc make libc6-dev liburing-dev libdpdk-dev libaio-dev libcjson-dev libcunit1-dev \
              spin git clang clang-format clang-tidy libclang-rt-14-dev linux-perf iproute2 \
              linux-headers-amd64 fio gnuplot-nox jq qemu-utils libslirp-dev zlib1g-dev libzstd-dev \
              qemu-system-x86 cpio kmod xz-utils e2fsprogs iperf3 socat curl debootstrap wrk dmsetup \
              ethtool tcpdump perl libmicrohttpd-dev libnbd-dev nbdkit dpdk-dev \
              openvswitch-switch-dpdk libcurl4-gnutls-dev libpng-dev libncurses-dev libvncserver-dev isolinux syslinux-common xorriso \
              memtest86+ ipxe-qemu seabios grub-pc-bin grub-common

.DEFAULT_GOAL := build
include perf/perf.mk tests/tests.mk frontend-drivers/linux/kmod.mk

## build         the programs: build/sluice, -blkd, -bridge, -vnc, -screen and -bench, and the benchmark guest
build: $(B)/sluice $(B)/sluice-screen $(B)/sluice-vnc $(B)/sluice-blkd $(B)/sluice-bridge $(PROGRAMS)

define folder_lib
$(B)/lib$(1).a: $(call obj,$(call src,$(1)))
	@mkdir -p $$(@D)
	@rm -f $$@
	$$(AR) rcs $$@ $$^
endef
$(foreach f,$(FOLDERS),$(eval $(call folder_lib,$(f))))

$(B)/sluice: $(call obj,vmm/main.c) $(LIBS)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# What looks at a screen: linked with none of the monitor but what draws it.
SCREEN_OBJ := $(call obj,vmm/screen_client.c vmm/vga_draw.c vmm/cli.c)
$(B)/sluice-screen: $(call obj,vmm/screen_main.c vmm/screen_watch.c vmm/screen_keys.c) $(SCREEN_OBJ)
	$(CC) $(LDFLAGS) -o $@ $^ -lcurl -lpng -lncursesw -ltinfo -lcjson

# Its library is under the GPL: a program of its own.
$(B)/sluice-vnc: $(call obj,vmm/vnc_main.c) $(SCREEN_OBJ)
	$(CC) $(LDFLAGS) -o $@ $^ -lvncserver -lcurl -lcjson

$(B)/sluice-blkd: $(call obj,backend/blkd_main.c) $(B)/libbackend.a $(B)/libnetbridge.a $(B)/libblk.a $(B)/libring.a
	$(CC) $(LDFLAGS) -Wl,--as-needed -o $@ $^ $(LDLIBS)

$(B)/sluice-bridge: $(call obj,backend/bridge_main.c) $(B)/libbackend.a $(B)/libnetdpdk.a $(B)/libnetbridge.a \
		$(B)/libblk.a $(B)/libring.a
	$(CC) $(LDFLAGS) -Wl,--as-needed -o $@ $^ $(LDLIBS) $(DPDK_LIBS)

# Its headers want what every processor since 2008 has.
$(call obj,$(DPDK_SRC)): CFLAGS += $(shell pkg-config --cflags libdpdk 2>/dev/null)
$(B)/libnetdpdk.a: $(call obj,$(DPDK_SRC))
	@mkdir -p $(@D)
	@rm -f $@
	$(AR) rcs $@ $^

$(B)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

## demo          install what is missing, build, and compare emulated with split devices (3 minutes)
demo: deps
	@echo "== building"
	@$(MAKE) --no-print-directory -s -j$(JOBS) build
	@mkdir -p build/demo
	@test -f build/demo/disk.img || { echo "== making a disk image in which every sector says where it is"; \
		build/sluice bench --make-image build/demo/disk.img --image-size 256M; }
	@echo "== measuring: the same guest, image and ports; only the device model differs"
	@build/sluice bench --quick --image build/demo/disk.img --json build/demo/result.json --report build/demo/report
	@echo; echo "As JSON: build/demo/result.json; with plots: build/demo/report/index.html"

## deps          install the Debian packages that are missing (as root; else name them)
deps:
	@missing=; for p in $(PACKAGES); do \
		dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; \
	done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ]; then \
		echo "not root, so not installed:$$missing"; \
		echo "(as root: apt-get install --no-install-recommends$$missing)"; exit 0; \
	fi; \
	echo "== installing$$missing"; \
	log=$$(mktemp); \
	if apt-get update -qq >$$log 2>&1 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
		--no-install-recommends $$missing >>$$log 2>&1; then rm -f $$log; \
	else tail -n 20 $$log; rm -f $$log; exit 1; fi

## install       into PREFIX (default /usr/local), below DESTDIR
install: build
	install -D -m 755 $(B)/sluice $(DESTDIR)$(PREFIX)/bin/sluice
	install -D -m 755 $(B)/sluice-blkd $(DESTDIR)$(PREFIX)/bin/sluice-blkd
	install -D -m 755 $(B)/sluice-bridge $(DESTDIR)$(PREFIX)/bin/sluice-bridge
	install -D -m 755 $(B)/sluice-vnc $(DESTDIR)$(PREFIX)/bin/sluice-vnc
	install -D -m 755 $(B)/sluice-screen $(DESTDIR)$(PREFIX)/libexec/sluice/sluice-screen
	install -D -m 755 $(B)/sluice-bench $(DESTDIR)$(PREFIX)/libexec/sluice/sluice-bench
	install -D -m 644 build/perf/guest.elf $(DESTDIR)$(PREFIX)/libexec/sluice/guest.elf
	install -D -m 644 README.md $(DESTDIR)$(PREFIX)/share/doc/sluice/README.md
	install -D -m 644 LICENSE $(DESTDIR)$(PREFIX)/share/doc/sluice/LICENSE

## clean         remove build/
clean:
	rm -rf build

## help          this list
help:
	@echo "Sluice: make TARGET [SAN=address,undefined|thread] [CC=clang] [FUZZ_S=seconds] [PREFIX=...] [DESTDIR=...]"
	@echo
	@sed -n 's/^## /  /p' Makefile tests/tests.mk perf/perf.mk frontend-drivers/linux/kmod.mk

-include $(shell test -d build && find build -path build/lab -prune -o -type f -name '*.d' -print 2>/dev/null)
.PHONY: build demo deps install clean help
