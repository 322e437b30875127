/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The parallel port's registers. Input: pairs of bytes. First byte: bits 0-1 register, bits 2-3
 * size (1, 2, 4; 3: a pause of the machine), bit 4 write, bits 5-7 the value's high bits; second
 * byte: the value. Whatever was done, a byte that is printed then comes out.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "vmm/vmm.h"

#define OPERATIONS_MAX 4096u
#define PARALLEL_PORT  0x378u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct machine *fuzz_machine(int ends[2])
{
	static struct machine *m;
	static int fds[2];
	struct machine_config cfg;
	char why[VMM_WHY_MAX];

	if (m) {
		if (machine_reset(m, why) || machine_resume(m))
			abort();
	} else {
		if (pipe2(fds, O_NONBLOCK | O_CLOEXEC))
			abort();
		machine_config_init(&cfg);
		cfg.no_kvm = true;
		cfg.memory = 2 << 20;
		cfg.parallel.on = true;
		cfg.parallel.line.out = fds[1];
		if (machine_create(&m, &cfg, why))
			abort();
	}
	ends[0] = fds[0];
	return m;
}

static size_t fuzz_take(int fd, uint8_t *last)
{
	uint8_t buf[4096];
	size_t total = 0;
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0) {
		total += (size_t)n;
		*last = buf[n - 1];
	}
	return total;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t last = 0;
	int ends[2];
	struct machine *m = fuzz_machine(ends);

	for (size_t i = 0; i + 1 < size && i < 2 * OPERATIONS_MAX; i += 2) {
		uint16_t port = PARALLEL_PORT + (data[i] & 3);
		unsigned shift = data[i] >> 2 & 3;

		if (shift == 3) {
			machine_pause(m);
			machine_resume(m);
		} else if (data[i] & 0x10) {
			machine_port_write(
				m, port, data[i + 1] | (data[i] & 0xe0u) << 3, 1u << shift);
		} else {
			machine_port_read(m, port, 1u << shift);
		}
	}
	machine_port_write(m, PARALLEL_PORT + 2, 0x0c, 1);
	fuzz_take(ends[0], &last);
	machine_port_write(m, PARALLEL_PORT, 0x55, 1);
	machine_port_write(m, PARALLEL_PORT + 2, 0x0d, 1);
	machine_port_write(m, PARALLEL_PORT + 2, 0x0c, 1);
	if (fuzz_take(ends[0], &last) != 1 || last != 0x55)
		abort();
	return 0;
}
