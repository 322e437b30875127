# SPDX-License-Identifier: BSD-2-Clause
# ring/ as a kernel module, built by the kernel's own rules in build/kmod/, where symbolic links mirror the sources:
# that build writes beside them.

# The headers that linux-headers-amd64 stands for; KDIR=/lib/modules/RELEASE/build for others.
KDIR  ?= $(shell dpkg-query -W -f '$${Depends}' linux-headers-amd64 2>/dev/null | \
           sed -n 's,^\(linux-headers-[^ ]*\).*,/usr/src/\1,p')
# A compiler or flags chosen for the programs are not for the kernel.
KMAKE := env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL -u CC -u CFLAGS -u CPPFLAGS -u LDFLAGS make --no-print-directory

## kmod          ring/ as a Linux kernel module, build/kmod/sluice_ring.ko (needs linux-headers-amd64)
kmod:
	@test -e "$(KDIR)/Makefile" || { echo "no kernel headers: apt-get install linux-headers-amd64, or set KDIR"; exit 1; }
	@mkdir -p build/kmod/ring build/kmod/frontend-drivers/linux
	@find build/kmod -type l -delete
	@for d in ring frontend-drivers/linux; do \
		for f in $$d/*.[ch]; do ln -s "$(CURDIR)/$$f" "build/kmod/$$f"; done; \
	done
	@ln -s "$(CURDIR)/frontend-drivers/linux/Kbuild" build/kmod/Kbuild
	@$(KMAKE) -C "$(KDIR)" M="$(CURDIR)/build/kmod" $(if $(W),W=$(W)) modules

.PHONY: kmod
