/* SPDX-License-Identifier: BSD-2-Clause */
/* The options of `sluice run`. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/cli_run_priv.h"

#define BIOS_DEFAULT   "/usr/share/seabios/bios-256k.bin" /* Debian's package seabios */
#define MEMORY_MIN     (UINT64_C(2) << 20)
#define IO_THREADS_MAX 16u
#define POLL_US_MAX    1000000u

static const char help[] =
	"Usage: sluice run --kernel FILE | --firmware FILE [OPTION]...\n"
	"\n"
	"Runs one guest until it powers off or is stopped. --key value and --key=value\n"
	"are the same. --disk, --net and --serial may be given several times.\n"
	"\n"
	"  --kernel FILE        a bzImage (vmlinuz), or an ELF image (vmlinux, or any\n"
	"                       with a PVH note)\n"
	"  --firmware FILE      a BIOS image instead of a kernel: it boots from a disk\n"
	"                       (with --disk alone: Debian's SeaBIOS, where it is).\n"
	"                       For UEFI: OVMF_CODE.fd,vars=COPY-OF-OVMF_VARS.fd\n"
	"  --firmware-log FILE  what it says on its debug port (nowhere)\n"
	"  --vga MODEL          its screen: std or none (std with --firmware)\n"
	"  --boot ORDER         what firmware tries: letters of a floppy, c disk, d CD,\n"
	"                       n network, in their order (its own order)\n"
	"  --initrd FILE        an initial RAM disk for it (none)\n"
	"  --cmdline TEXT       the kernel's command line (empty)\n"
	"  --cpus N             processors, 1 to 64 (1)\n"
	"  --cpu MODEL          what they are: host (all that KVM offers), or v2 or v3,\n"
	"                       the x86-64 levels, the same on every host (host)\n"
	"  --memory SIZE        guest memory with a unit: 512M, 1G; a multiple of 2M\n"
	"                       (256M)\n"
	"  --hugepages          guest memory on the host's 2 MiB pages\n"
	"  --disk KEY=VALUE,... a disk, see below\n"
	"  --net KEY=VALUE,...  a network card, see below\n"
	"  --io-threads N       threads that do the devices' I/O, 1 to 16 (1)\n"
	"  --poll-us N          longest time an I/O thread polls before it sleeps, in\n"
	"                       microseconds; 0: it never polls (500)\n"
	"  --no-io-uring        I/O threads wait with epoll instead\n"
	"  --no-coalesce        every register write of an emulated device is an exit,\n"
	"                       also where KVM could keep some together\n"
	"  --no-moderation      an e1000 interrupts at once, however seldom its driver\n"
	"                       wants it to\n"
	"  --serial WHERE       a serial port, COM1 the first time, then COM2 to COM4:\n"
	"                       stdio, none, file=PATH, unix=PATH (a socket, made at\n"
	"                       start) or pty (its name is said); once, stdio\n"
	"  --parallel WHERE     a printer at LPT1; what it prints goes to none,\n"
	"                       file=PATH, unix=PATH or pty (no such port)\n"
	"  --console WHERE      the same as the first --serial\n"
	"  --hvc WHERE          a virtio console, hvc0: stdio, none or file=PATH; with\n"
	"                       stdio the serial port has no terminal (no such console)\n"
	"  --rng                a virtio entropy device\n"
	"  --vsock cid=N,socket=PATH   sockets between guest and host, see below\n"
	"  --fs tag=TEXT,socket=PATH   a tree of the host's, see below\n"
	"  --balloon KEY=VALUE,...  a virtio memory balloon, see below\n"
	"  --control PATH       a socket for `sluice screenshot`, type, key and others\n"
	"  --display WHERE      none, or curses: the screen and keyboard in this\n"
	"                       terminal, by `sluice watch`; Ctrl-] ends the guest\n"
	"                       (none)\n"
	"  --no-reboot          end when the guest reboots\n"
	"  --counters           print what the run cost at its end, on standard error\n"
	"  --verbose            say which engine was chosen for each disk\n"
	"  --help               this text\n"
	"\n"
	"Keys of --disk (a comma inside a value is written ,,):\n"
	"  path=FILE            an image or a block device; or fd=N, open already\n"
	"  nbd=URI              or a disk of an NBD server: nbd://HOST[:PORT][/EXPORT],\n"
	"                       nbd+unix:///[EXPORT]?socket=PATH\n"
	"  format=FORMAT        raw, qcow2 or auto: by how the image begins (auto)\n"
	"  model=MODEL          virtio-blk or ide (virtio-blk)\n"
	"  engine=ENGINE        io_uring, aio, threads or auto (auto)\n"
	"  direct=on|off|auto   past the host's page cache (auto)\n"
	"  readonly=on|off      also ro (off)\n"
	"  serial=TEXT          up to 20 characters\n"
	"  sqpoll=on|off        io_uring: a kernel thread takes submissions (off)\n"
	"  registered=on|off    io_uring: guest memory registered, pinned (off)\n"
	"  fault=SPEC           faults on purpose, for testing guests, with : between\n"
	"                       items: cache (unflushed writes are lost in part when this\n"
	"                       process is killed), size=, seed=, torn=512|4096;\n"
	"                       lose-flush; eio=OFFSET+LENGTH, eio-every=N,\n"
	"                       enospc-after=BYTES, delay-us=N\n"
	"  and with virtio-blk:\n"
	"  queues=N             1 to 64 (1)\n"
	"  queue-size=N         requests in one queue: 2, 4, 8 ... 1024 (256)\n"
	"  ring=split|packed    queue layout offered (split)\n"
	"  indirect=on|off      indirect descriptors (on)\n"
	"  event-idx=on|off     event indices (on)\n"
	"  in-order=on|off      in-order completion (off)\n"
	"\n"
	"Keys of --net:\n"
	"  tap=NAME             a tap interface, made if it does not exist;\n"
	"                       or fd=N; or mem=sink|source|echo, a port in memory\n"
	"  user                 instead: behind NAT, without any privilege; with\n"
	"  hostfwd=tcp:127.0.0.1:8080-:80   a port of the host that leads to the guest,\n"
	"                       udp likewise; may be repeated; no address: 127.0.0.1\n"
	"  net=, host=, dns=, dhcpstart=    the guest's network (10.0.2.0/24), in it the\n"
	"                       router and host, the resolver, the guest (.2, .3, .15)\n"
	"  hostname=TEXT        that DHCP gives; restrict=on|off: nothing gets out (off);\n"
	"                       ipv6=on|off: also fec0::/64 (off)\n"
	"  model=MODEL          virtio-net, e1000, ne2k_pci or rtl8139 (virtio-net)\n"
	"  mac=ADDRESS          as 52:54:00:12:34:56 (made up)\n"
	"  and with virtio-net:\n"
	"  queues=N             queue pairs, 1 to 16 (1)\n"
	"  mergeable=on|off     mergeable receive buffers (on)\n"
	"  offload=on|off       checksum and segmentation offload (on)\n"
	"  ring=, queue-size=, indirect=, event-idx=, in-order= as above\n"
	"\n"
	"Keys of --disk and --net served by another process (vhost-user):\n"
	"  vhost-user=PATH      instead of path= or tap=: its socket; or fd=N, connected,\n"
	"                       with model=vhost-user-blk or model=vhost-user-net\n"
	"  mode=connect|listen  listen: this side does, the other connects (connect)\n"
	"  reconnect=on|off     wait for another when one is lost, for ever (on)\n"
	"  wait-s=N             for the first one, at start (10)\n"
	"  mac=, queues=, ring=, queue-size=, indirect=, event-idx=, in-order=,\n"
	"  mergeable=, offload= as above\n"
	"\n"
	"Keys of --fs, which may be given several times:\n"
	"  tag=TEXT             what the guest mounts: mount -t virtiofs TEXT /mnt\n"
	"  socket=PATH          of virtiofsd; or fd=N, connected\n"
	"  queues=N             request queues, 1 to 62 (1)\n"
	"  mode=, reconnect=, wait-s=, ring=, queue-size=, indirect=, event-idx= as above\n"
	"\n"
	"Keys of --vsock:\n"
	"  cid=N                the guest's address, 3 or above\n"
	"  socket=PATH          made at start, removed at the end: connect to it, write\n"
	"                       \"CONNECT PORT\\n\", read \"OK ...\\n\"; a guest that connects\n"
	"                       to port P of the host (2) reaches who listens at PATH_P\n"
	"  connections=N        at once, 1 to 32768 (1024)\n"
	"  ring=, queue-size=, indirect=, event-idx=, in-order= as above\n"
	"\n"
	"Keys of --balloon:\n"
	"  size=SIZE            memory asked back from the guest at start (0)\n"
	"  deflate-on-oom=on|off\n"
	"                       a guest out of memory takes pages back (on)\n"
	"  free-page-reporting=on|off\n"
	"                       free pages go back to the host unasked (on)\n"
	"  ring=split|packed    queue layout offered (split)\n"
	"\n"
	"On a terminal, Ctrl-A x quits, Ctrl-A a sends Ctrl-A, Ctrl-A h helps. SIGTERM\n"
	"and SIGINT stop the guest cleanly, with all accepted writes on disk.\n"
	"\n"
	"Exit status: 0 the guest powered off or was stopped, 1 the host would not,\n"
	"2 a mistake in the options, 3 the guest ended in a triple fault.\n"
	"\n"
	"Examples:\n"
	"  sluice run --kernel vmlinux --cmdline console=ttyS0 --memory 1G \\\n"
	"             --disk path=web.img --net tap=tap0\n"
	"  sluice run --kernel guest.elf --disk path=old.img,model=ide,ro=on \\\n"
	"             --net mem=echo,model=ne2k_pci --console file=serial.log\n";

enum {
	O_KERNEL,
	O_FIRMWARE,
	O_FIRMWARE_LOG,
	O_VGA,
	O_BOOT,
	O_INITRD,
	O_CMDLINE,
	O_CPUS,
	O_CPU,
	O_MEMORY,
	O_HUGEPAGES,
	O_DISK,
	O_NET,
	O_IO_THREADS,
	O_POLL_US,
	O_NO_IO_URING,
	O_NO_COALESCE,
	O_NO_MODERATION,
	O_CONSOLE,
	O_SERIAL,
	O_PARALLEL,
	O_HVC,
	O_RNG,
	O_BALLOON,
	O_VSOCK,
	O_FS,
	O_CONTROL,
	O_DISPLAY,
	O_NO_REBOOT,
	O_COUNTERS,
	O_VERBOSE,
	O_HELP,
	O_HELP_SHORT,
	O_COUNT,
};

static const struct cli_option options[] = {
	[O_KERNEL] = {"--kernel", true},
	[O_FIRMWARE] = {"--firmware", true},
	[O_FIRMWARE_LOG] = {"--firmware-log", true},
	[O_VGA] = {"--vga", true},
	[O_BOOT] = {"--boot", true},
	[O_INITRD] = {"--initrd", true},
	[O_CMDLINE] = {"--cmdline", true},
	[O_CPUS] = {"--cpus", true},
	[O_CPU] = {"--cpu", true},
	[O_MEMORY] = {"--memory", true},
	[O_HUGEPAGES] = {"--hugepages", false},
	[O_DISK] = {"--disk", true},
	[O_NET] = {"--net", true},
	[O_IO_THREADS] = {"--io-threads", true},
	[O_POLL_US] = {"--poll-us", true},
	[O_NO_IO_URING] = {"--no-io-uring", false},
	[O_NO_COALESCE] = {"--no-coalesce", false},
	[O_NO_MODERATION] = {"--no-moderation", false},
	[O_CONSOLE] = {"--console", true},
	[O_SERIAL] = {"--serial", true},
	[O_PARALLEL] = {"--parallel", true},
	[O_HVC] = {"--hvc", true},
	[O_RNG] = {"--rng", false},
	[O_BALLOON] = {"--balloon", true},
	[O_VSOCK] = {"--vsock", true},
	[O_FS] = {"--fs", true},
	[O_CONTROL] = {"--control", true},
	[O_DISPLAY] = {"--display", true},
	[O_NO_REBOOT] = {"--no-reboot", false},
	[O_COUNTERS] = {"--counters", false},
	[O_VERBOSE] = {"--verbose", false},
	[O_HELP] = {"--help", false},
	[O_HELP_SHORT] = {"-h", false},
	[O_COUNT] = {NULL, false},
};

static int usage(const char *why)
{
	return cli_fail("run", CLI_USAGE, "%s", why);
}

static int count_parse(
	const char *option, const char *text, unsigned min, unsigned max, unsigned *out)
{
	unsigned long v;
	char *end;

	errno = 0;
	v = strtoul(text, &end, 10);
	if (*text < '0' || *text > '9' || errno || *end || v < min || v > max)
		return cli_fail("run", CLI_USAGE, "%s %.40s: not a number in range; use %u to %u",
			option, text, min, max);
	*out = (unsigned)v;
	return RUN_GO;
}

static int memory_parse(const char *text, uint64_t *out)
{
	if (vmm_size_parse(text, out))
		return cli_fail("run", CLI_USAGE,
			"--memory %.40s: not a size; use a number with a unit, as in 512M or 1G",
			text);
	if (*out < MEMORY_MIN)
		return cli_fail("run", CLI_USAGE,
			"--memory %.40s: too little; add a unit, as in 512M or 1G (at least 2M)",
			text);
	if (*out % MEMORY_MIN)
		return cli_fail("run", CLI_USAGE,
			"--memory %.40s: not a multiple of 2M; use one, as in %" PRIu64 "M", text,
			(*out / MEMORY_MIN + 1) * 2);
	return RUN_GO;
}

/* port: it has a line, with somebody at the other end. */
static int place_parse(const char *option, const char *text, bool port, struct run_place *where)
{
	if (!strcmp(text, "stdio")) {
		where->kind = RUN_STDIO;
	} else if (!strcmp(text, "none")) {
		where->kind = RUN_NONE;
	} else if (!strncmp(text, "file=", 5) && text[5]) {
		where->kind = RUN_FILE;
		where->path = text + 5;
	} else if (port && !strncmp(text, "unix=", 5) && text[5]) {
		where->kind = RUN_UNIX;
		where->path = text + 5;
	} else if (port && !strcmp(text, "pty")) {
		where->kind = RUN_PTY;
	} else {
		return cli_fail("run", CLI_USAGE, "%s %.60s: unknown place; use stdio, none%s",
			option, text, port ? ", file=PATH, unix=PATH or pty" : " or file=PATH");
	}
	return RUN_GO;
}

static int serial_add(struct run_options *o, const char *text)
{
	if (o->nserials == VMM_SERIALS_MAX)
		return cli_fail("run", CLI_USAGE,
			"--serial %.60s: too many ports; at most %u are possible", text,
			VMM_SERIALS_MAX);
	o->cfg.serials[o->nserials].on = true;
	return place_parse("--serial", text, true, &o->serials[o->nserials++]);
}

static int parallel_set(struct run_options *o, const char *text)
{
	if (!strcmp(text, "stdio"))
		return usage("--parallel stdio: a printer has no terminal; use none, file=PATH, "
			     "unix=PATH or pty");
	o->cfg.parallel.on = true;
	return place_parse("--parallel", text, true, &o->parallel);
}

/* There is one terminal. */
static int terminal_taken(const struct run_options *o)
{
	const char *option = o->console_given ? "console" : "serial";

	if (run_hvc_has_terminal(o))
		return cli_fail("run", CLI_USAGE,
			"--hvc stdio: the serial port has the terminal; leave --%s stdio out",
			option);
	return cli_fail("run", CLI_USAGE, "--%s stdio: %s has the terminal; use unix=PATH or pty",
		option, o->display ? "the display" : "another port");
}

static int consoles_check(struct run_options *o)
{
	unsigned terminals = run_hvc_has_terminal(o) + o->display;

	if (o->display && run_hvc_has_terminal(o))
		return usage("--hvc stdio: the display has the terminal; leave one of them out");
	if (o->console_given && o->nserials)
		return usage("--console: the same as the first --serial; leave one of them out");
	if (!o->nserials) {
		if (!o->console_given && terminals)
			o->console.kind = RUN_NONE;
		o->serials[o->nserials++] = o->console;
	}
	for (unsigned i = 0; i < o->nserials; i++)
		if (o->serials[i].kind == RUN_STDIO && terminals++)
			return terminal_taken(o);
	return RUN_GO;
}

static int vsock_set(struct machine_config *cfg, const char *text)
{
	char why[VMM_WHY_MAX];

	return vsock_config_parse(&cfg->vsock, text, why) ? usage(why) : RUN_GO;
}

static int balloon_set(struct machine_config *cfg, const char *text)
{
	char why[VMM_WHY_MAX];

	return balloon_config_parse(&cfg->balloon, text, why) ? usage(why) : RUN_GO;
}

static int fs_add(struct machine_config *cfg, const char *text)
{
	char why[VMM_WHY_MAX];

	if (cfg->nfs == VMM_FS_MAX)
		return cli_fail("run", CLI_USAGE,
			"--fs %.60s: too many file systems; at most %u are possible", text,
			VMM_FS_MAX);
	if (fs_config_parse(&cfg->fs[cfg->nfs], text, why))
		return usage(why);
	cfg->nfs++;
	return RUN_GO;
}

static int disk_add(struct machine_config *cfg, const char *text)
{
	char why[VMM_WHY_MAX];

	if (cfg->ndisks == VMM_DISKS_MAX)
		return cli_fail("run", CLI_USAGE,
			"--disk %.60s: too many disks; at most %u are possible", text,
			VMM_DISKS_MAX);
	if (disk_config_parse(&cfg->disks[cfg->ndisks], text, why))
		return usage(why);
	cfg->ndisks++;
	return RUN_GO;
}

static int net_add(struct machine_config *cfg, const char *text)
{
	char why[VMM_WHY_MAX];

	if (cfg->nnets == VMM_NETS_MAX)
		return cli_fail("run", CLI_USAGE,
			"--net %.60s: too many cards; at most %u are possible", text, VMM_NETS_MAX);
	if (net_config_parse(&cfg->nets[cfg->nnets], text, why))
		return usage(why);
	cfg->nnets++;
	return RUN_GO;
}

static int flag_set(struct run_options *o, int option)
{
	switch (option) {
	case O_HUGEPAGES:
		o->cfg.hugepages = true;
		break;
	case O_NO_MODERATION:
		o->cfg.no_moderation = true;
		break;
	case O_NO_COALESCE:
		o->cfg.no_coalesce = true;
		break;
	case O_NO_IO_URING:
		o->cfg.no_io_uring = true;
		break;
	case O_RNG:
		o->cfg.rng.on = true;
		break;
	case O_NO_REBOOT:
		o->no_reboot = true;
		break;
	case O_COUNTERS:
		o->counters = true;
		break;
	case O_VERBOSE:
		o->verbose = true;
		break;
	default:
		fputs(help, stdout);
		return CLI_OK;
	}
	return RUN_GO;
}

/* FILE or FILE,vars=FILE */
static int firmware_parse(struct run_options *o, const char *value)
{
	const char *vars = strstr(value, ",vars=");
	size_t len = vars ? (size_t)(vars - value) : strlen(value);

	if (!len || len >= sizeof(o->firmware) || (vars && !vars[6]))
		return usage(
			"--firmware: no file; use --firmware FILE or --firmware FILE,vars=FILE");
	memcpy(o->firmware, value, len);
	o->firmware[len] = '\0';
	o->cfg.firmware = o->firmware;
	o->cfg.firmware_vars = vars ? vars + 6 : NULL;
	return RUN_GO;
}

static int vga_parse(struct machine_config *cfg, const char *value)
{
	bool none = !strcmp(value, "none");

	if (!none && strcmp(value, "std") != 0)
		return cli_fail(
			"run", CLI_USAGE, "--vga %.40s: unknown model; use std or none", value);
	cfg->vga = none ? VMM_OFF : VMM_ON;
	return RUN_GO;
}

static int display_parse(struct run_options *o, const char *value)
{
	o->display = !strcmp(value, "curses");
	if (!o->display && strcmp(value, "none") != 0)
		return cli_fail("run", CLI_USAGE,
			"--display %.40s: unknown display; use curses or none", value);
	return RUN_GO;
}

static int option_set(struct run_options *o, int option, const char *value)
{
	struct machine_config *cfg = &o->cfg;

	switch (option) {
	case O_KERNEL:
		cfg->kernel = value;
		return RUN_GO;
	case O_FIRMWARE:
		return firmware_parse(o, value);
	case O_FIRMWARE_LOG:
		o->firmware_log = value;
		return RUN_GO;
	case O_VGA:
		return vga_parse(cfg, value);
	case O_BOOT:
		if (vmm_boot_parse(value, cfg->boot))
			return cli_fail("run", CLI_USAGE,
				"--boot %.40s: use up to three of the letters a, c, d and n",
				value);
		return RUN_GO;
	case O_CONTROL:
		o->control = value;
		return RUN_GO;
	case O_DISPLAY:
		return display_parse(o, value);
	case O_INITRD:
		cfg->initrd = value;
		return RUN_GO;
	case O_CMDLINE:
		cfg->cmdline = value;
		return RUN_GO;
	case O_CPUS:
		return count_parse("--cpus", value, 1, VMM_CPUS_MAX, &cfg->cpus);
	case O_CPU:
		if (vmm_cpu_parse(value, &cfg->cpu))
			return cli_fail("run", CLI_USAGE,
				"--cpu %.40s: unknown processor; use host, v2 or v3", value);
		return RUN_GO;
	case O_MEMORY:
		return memory_parse(value, &cfg->memory);
	case O_DISK:
		return disk_add(cfg, value);
	case O_NET:
		return net_add(cfg, value);
	case O_IO_THREADS:
		return count_parse("--io-threads", value, 1, IO_THREADS_MAX, &cfg->io_threads);
	case O_POLL_US:
		cfg->poll_set = true;
		return count_parse("--poll-us", value, 0, POLL_US_MAX, &cfg->poll_us);
	case O_CONSOLE:
		o->console_given = true;
		return place_parse("--console", value, true, &o->console);
	case O_SERIAL:
		return serial_add(o, value);
	case O_PARALLEL:
		return parallel_set(o, value);
	case O_HVC:
		cfg->hvc.on = true;
		return place_parse("--hvc", value, false, &o->hvc);
	case O_BALLOON:
		return balloon_set(cfg, value);
	case O_VSOCK:
		return vsock_set(cfg, value);
	case O_FS:
		return fs_add(cfg, value);
	default:
		return flag_set(o, option);
	}
}

int run_options_parse(struct run_options *o, int argc, char **argv)
{
	struct cli_args a = {.command = "run", .argc = argc, .argv = argv, .options = options};
	bool given[O_COUNT] = {false};
	enum cli_next next;
	int status;

	memset(o, 0, sizeof(*o));
	machine_config_init(&o->cfg);
	while ((next = cli_args_next(&a)) != CLI_END) {
		if (next == CLI_BAD)
			return CLI_USAGE;
		if (next == CLI_WORD)
			return cli_fail("run", CLI_USAGE,
				"%.60s: not an option; `sluice run --help` lists them", a.word);
		if (given[a.option] && a.option != O_DISK && a.option != O_NET &&
			a.option != O_FS && a.option != O_SERIAL)
			return cli_fail("run", CLI_USAGE, "%s: given twice; give it once",
				options[a.option].name);
		given[a.option] = true;
		status = option_set(o, a.option, a.value);
		if (status != RUN_GO)
			return status;
	}
	/* a PC with a disk and nothing else starts as any PC does */
	if (!o->cfg.kernel && !o->cfg.firmware && o->cfg.ndisks && !access(BIOS_DEFAULT, R_OK))
		o->cfg.firmware = BIOS_DEFAULT;
	if (!o->cfg.kernel && !o->cfg.firmware)
		return usage("--kernel: missing; give --kernel FILE, a bzImage or an ELF image; or "
			     "--firmware FILE");
	if (o->firmware_log && !o->cfg.firmware)
		return usage("--firmware-log: there is no firmware; give --firmware FILE");
	if (o->cfg.vga == VMM_ON && !o->cfg.firmware)
		return usage("--vga std: it takes firmware; give --firmware FILE");
	if (o->display && (!o->cfg.firmware || o->cfg.vga == VMM_OFF))
		return usage("--display curses: this guest has no screen; give --firmware FILE, "
			     "and leave --vga none out");
	return consoles_check(o);
}
