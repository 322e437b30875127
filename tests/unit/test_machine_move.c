/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A working guest is moved from machine to machine, again and again, in the middle of its
 * transfers: paused, saved, destroyed; a fresh machine takes memory, state and the same image, and
 * goes on. The benchmark guest checks every block it reads and reads back what it wrote, so that a
 * request lost, done twice or cut in half is an error it reports.
 */
#include <errno.h>

#include "tests/unit/test_machine_rig.h"

#define GUEST_ELF  "build/perf/guest.elf"
#define MOVES      12u
#define IMAGE_SIZE (8u << 20)

struct moved {
	struct machine *m;
	struct machine_config cfg;
	int image;
	char path[64];
	char out[65536];
	size_t nout;
	uint8_t *memory; /* what travels with the state */
};

static void moved_output(void *ctx, const uint8_t *bytes, size_t n)
{
	struct moved *v = ctx;

	for (size_t i = 0; i < n && v->nout < sizeof(v->out) - 1; i++)
		v->out[v->nout++] = (char)bytes[i];
}

static uint64_t moved_bytes(const struct machine *m)
{
	const struct ring_mem *mem = machine_memory(m);

	return mem->regions[0].size;
}

/* Out of one machine, into another. False: why was printed. */
static bool moved_once(struct moved *v)
{
	struct state_writer w = {0};
	struct state_reader r;
	char why[VMM_WHY_MAX] = "";
	bool ok;

	machine_pause(v->m);
	ok = machine_save(v->m, &w) == 0;
	memcpy(v->memory, machine_memory(v->m)->regions[0].hva, moved_bytes(v->m));
	machine_destroy(v->m);
	v->m = NULL;
	if (!ok || machine_create(&v->m, &v->cfg, why))
		goto out;
	memcpy(machine_memory(v->m)->regions[0].hva, v->memory, moved_bytes(v->m));
	state_reader_init(&r, w.data, w.len);
	ok = machine_load(v->m, &r, why) == 0 && r.pos == r.len && machine_start(v->m, why) == 0;
out:
	state_writer_free(&w);
	if (!ok || !v->m)
		printf("\nmoving: %s\n", why);
	return ok && v->m;
}

static void moved_init(struct moved *v, const char *cmdline)
{
	memset(v, 0, sizeof(*v));
	machine_config_init(&v->cfg);
	v->cfg.kernel = GUEST_ELF;
	v->cfg.cmdline = cmdline;
	v->cfg.memory = 32ull << 20;
	v->cfg.console_hook = moved_output;
	v->cfg.console_ctx = v;
	v->image = -1;
	v->memory = malloc(v->cfg.memory);
}

static void moved_disk(struct moved *v, const char *model, bool packed)
{
	v->image = memfd_create("disk", MFD_CLOEXEC);
	if (v->image < 0 || ftruncate(v->image, IMAGE_SIZE))
		abort();
	snprintf(v->path, sizeof(v->path), "/proc/self/fd/%d", v->image);
	v->cfg.disks[0] =
		(struct disk_config){.path = v->path, .fd = -1, .model = model, .packed = packed};
	v->cfg.ndisks = 1;
}

static void moved_run(struct moved *v, const char *must)
{
	enum machine_end end = MACHINE_RUNNING;
	char why[VMM_WHY_MAX] = "";
	unsigned moves = 0;
	bool ok = v->memory && machine_create(&v->m, &v->cfg, why) == 0 &&
		  machine_start(v->m, why) == 0;

	if (!ok)
		printf("\n%s\n", why);
	CU_ASSERT_FATAL(ok);
	while (ok && moves < MOVES && end == MACHINE_RUNNING) {
		end = machine_wait(v->m, 15 + (int)moves * 3);
		if (end == MACHINE_RUNNING) {
			ok = moved_once(v);
			moves++;
		}
	}
	CU_ASSERT_TRUE_FATAL(ok);
	if (end == MACHINE_RUNNING)
		end = machine_wait(v->m, GUEST_TIMEOUT);
	v->out[v->nout] = '\0';
	if (end != MACHINE_POWEROFF || !strstr(v->out, "SLUICE-DONE failed=0") ||
		strstr(v->out, "SLUICE-ERROR"))
		printf("\n%s %s\n%s\n", machine_end_name(end), machine_failure(v->m), v->out);
	CU_ASSERT_EQUAL(end, MACHINE_POWEROFF);
	CU_ASSERT_PTR_NOT_NULL(strstr(v->out, "SLUICE-DONE failed=0"));
	CU_ASSERT_PTR_NULL(strstr(v->out, "SLUICE-ERROR"));
	CU_ASSERT_PTR_NOT_NULL(strstr(v->out, must));
	if (!moves)
		unit_skip("the guest was done before it could be moved");
	machine_destroy(v->m);
	free(v->memory);
	if (v->image >= 0)
		close(v->image);
}

static bool moved_missing(void)
{
	if (guest_kvm_missing())
		return true;
	if (access(GUEST_ELF, R_OK) == 0)
		return false;
	unit_skip(GUEST_ELF " is not built");
	return true;
}

static void move_disk(const char *model, const char *transfer, bool packed)
{
	static struct moved v;
	static char cmdline[512];

	if (moved_missing())
		return;
	snprintf(cmdline, sizeof(cmdline),
		"job=blk,dev=%s,transfer=%s,work=format,size=65536,depth=16 "
		"job=blk,dev=%s,transfer=%s,work=randwrite,size=4096,depth=16,ms=150 "
		"job=blk,dev=%s,transfer=%s,work=verify,size=16384,depth=8",
		model, transfer, model, transfer, model, transfer);
	moved_init(&v, cmdline);
	moved_disk(&v, model, packed);
	moved_run(&v, "errors=0");
}

static void test_blk_split(void)
{
	move_disk("virtio-blk", "ring", false);
}

static void test_blk_packed(void)
{
	move_disk("virtio-blk", "ring", true);
}

static void test_ide_dma(void)
{
	move_disk("ide", "dma", false);
}

static void test_ide_pio(void)
{
	move_disk("ide", "pio", false);
}

/* Frames go into a port that lasts only as long as its machine, so nothing is counted but errors.
 */
static void move_net(const char *model, bool packed)
{
	static struct moved v;
	static char cmdline[256];

	if (moved_missing())
		return;
	snprintf(cmdline, sizeof(cmdline),
		"job=net,dev=%s,work=tx,size=64,ms=150 job=net,dev=%s,work=tx,size=1514,ms=150",
		model, model);
	moved_init(&v, cmdline);
	v.cfg.nets[0].memory = "sink";
	v.cfg.nets[0].model = model;
	v.cfg.nets[0].packed = packed;
	v.cfg.nnets = 1;
	moved_run(&v, "errors=0");
}

static void test_net_split(void)
{
	move_net("virtio-net", false);
}

static void test_net_packed(void)
{
	move_net("virtio-net", true);
}

static void test_e1000(void)
{
	move_net("e1000", false);
}

static void test_ne2000(void)
{
	move_net("ne2k_pci", false);
}

static const struct unit_case cases[] = {
	{"virtio-blk, split ring", test_blk_split},
	{"virtio-blk, packed ring", test_blk_packed},
	{"IDE by DMA", test_ide_dma},
	{"IDE by PIO", test_ide_pio},
	{"virtio-net, split ring", test_net_split},
	{"virtio-net, packed ring", test_net_packed},
	{"e1000", test_e1000},
	{"NE2000", test_ne2000},
};

UNIT_MAIN("machine_move", cases)
