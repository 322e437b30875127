/* SPDX-License-Identifier: BSD-2-Clause */
/* --disk, --net and sizes: every key, and one line that says what would do for each mistake. */
#include <string.h>

#include "tests/unit/unit.h"
#include "vmm/vmm.h"

static char why[VMM_WHY_MAX];

static struct disk_config disk_ok(const char *text)
{
	struct disk_config cfg;
	int err = disk_config_parse(&cfg, text, why);

	CU_ASSERT_EQUAL(err, 0);
	if (err)
		printf("\n%s: %s\n", text, why);
	return cfg;
}

static void disk_free(struct disk_config *cfg)
{
	struct machine_config m;

	machine_config_init(&m);
	m.disks[m.ndisks++] = *cfg;
	machine_config_free(&m);
	CU_ASSERT_EQUAL(m.ndisks, 0);
}

static struct net_config net_ok(const char *text)
{
	struct net_config cfg;
	int err = net_config_parse(&cfg, text, why);

	CU_ASSERT_EQUAL(err, 0);
	if (err)
		printf("\n%s: %s\n", text, why);
	return cfg;
}

static void net_free(struct net_config *cfg)
{
	struct machine_config m;

	machine_config_init(&m);
	m.nets[m.nnets++] = *cfg;
	machine_config_free(&m);
}

/* One line, starting with the option, holding every one of the words (NULL ends them). */
static void told(int err, const char *text, const char *option, const char *const *words)
{
	CU_ASSERT(err < 0);
	CU_ASSERT(strlen(why) < VMM_WHY_MAX);
	CU_ASSERT_PTR_NULL(strchr(why, '\n'));
	CU_ASSERT_EQUAL(strncmp(why, option, strlen(option)), 0);
	for (; *words; words++) {
		CU_ASSERT_PTR_NOT_NULL(strstr(why, *words));
		if (!strstr(why, *words))
			printf("\n%.60s: '%s' lacks '%s'\n", text, why, *words);
	}
}

static void disk_bad(const char *text, const char *const *words)
{
	struct disk_config cfg;

	memset(why, 'x', sizeof(why));
	told(disk_config_parse(&cfg, text, why), text, "--disk ", words);
	/* nothing is left to free */
	CU_ASSERT_PTR_NULL(cfg.path);
	CU_ASSERT_EQUAL(cfg.fd, -1);
}

static void net_bad(const char *text, const char *const *words)
{
	struct net_config cfg;

	memset(why, 'x', sizeof(why));
	told(net_config_parse(&cfg, text, why), text, "--net ", words);
	CU_ASSERT_PTR_NULL(cfg.tap);
	CU_ASSERT_EQUAL(cfg.fd, -1);
}

#define W(...) ((const char *const[]){__VA_ARGS__, NULL})

/* ------------------------------------------------------------------ what is right */

static void disk_defaults(void)
{
	struct disk_config c = disk_ok("path=a.img");

	CU_ASSERT_STRING_EQUAL(c.path, "a.img");
	CU_ASSERT_EQUAL(c.fd, -1);
	CU_ASSERT_PTR_NULL(c.model);
	CU_ASSERT_EQUAL(c.engine, BLK_ENGINE_AUTO);
	CU_ASSERT_EQUAL(c.direct, BLK_DIRECT_AUTO);
	CU_ASSERT_FALSE(c.readonly);
	CU_ASSERT_FALSE(c.packed);
	CU_ASSERT_EQUAL(c.queues, 0);
	CU_ASSERT_EQUAL(c.queue_size, 0);
	CU_ASSERT_EQUAL(c.indirect, VMM_DEFAULT);
	CU_ASSERT_EQUAL(c.event_idx, VMM_DEFAULT);
	CU_ASSERT_EQUAL(c.in_order, VMM_DEFAULT);
	disk_free(&c);
}

static void disk_every_key(void)
{
	struct disk_config c =
		disk_ok("path=b,,c.img,model=virtio-blk,engine=io_uring,direct=on,readonly=on,"
			"serial=S 1,sqpoll=on,registered=on,ring=packed,queues=4,queue-size=128,"
			"indirect=off,event-idx=on,in-order=on,fault=cache:seed=7");

	CU_ASSERT_STRING_EQUAL(c.path, "b,c.img");
	CU_ASSERT_STRING_EQUAL(c.model, "virtio-blk");
	CU_ASSERT_EQUAL(c.engine, BLK_ENGINE_URING);
	CU_ASSERT_EQUAL(c.direct, BLK_DIRECT_ON);
	CU_ASSERT(c.readonly);
	CU_ASSERT_STRING_EQUAL(c.serial, "S 1");
	CU_ASSERT_STRING_EQUAL(c.fault, "cache:seed=7");
	CU_ASSERT(c.sqpoll);
	CU_ASSERT(c.registered_memory);
	CU_ASSERT(c.packed);
	CU_ASSERT_EQUAL(c.queues, 4);
	CU_ASSERT_EQUAL(c.queue_size, 128);
	CU_ASSERT_EQUAL(c.indirect, VMM_OFF);
	CU_ASSERT_EQUAL(c.event_idx, VMM_ON);
	CU_ASSERT_EQUAL(c.in_order, VMM_ON);
	disk_free(&c);

	c = disk_ok("ro,fd=7,model=ide,engine=threads,direct=off,format=qcow2");
	CU_ASSERT_EQUAL(c.fd, 7);
	CU_ASSERT(c.readonly);
	CU_ASSERT_STRING_EQUAL(c.model, "ide");
	CU_ASSERT_EQUAL(c.engine, BLK_ENGINE_THREADS);
	CU_ASSERT_EQUAL(c.format, BLK_FORMAT_QCOW2);
	CU_ASSERT_EQUAL(c.direct, BLK_DIRECT_OFF);
	disk_free(&c);

	c = disk_ok("path=x=y,ro=off,engine=aio,serial=12345678901234567890,ring=split");
	CU_ASSERT_STRING_EQUAL(c.path, "x=y");
	CU_ASSERT_FALSE(c.readonly);
	CU_ASSERT_EQUAL(c.engine, BLK_ENGINE_AIO);
	CU_ASSERT_EQUAL(strlen(c.serial), 20);
	disk_free(&c);
}

static void net_every_key(void)
{
	static const uint8_t mac[6] = {0x52, 0x54, 0, 0xab, 0xCD, 1};
	struct net_config c =
		net_ok("tap=tap0,model=virtio-net,mac=52:54:00:ab:CD:01,ring=packed,queues=2,"
		       "queue-size=1024,indirect=on,event-idx=off,in-order=off,mergeable=off,"
		       "offload=on");

	CU_ASSERT_STRING_EQUAL(c.tap, "tap0");
	CU_ASSERT(c.mac_set);
	CU_ASSERT_EQUAL(memcmp(c.mac, mac, 6), 0);
	CU_ASSERT(c.packed);
	CU_ASSERT_EQUAL(c.queues, 2);
	CU_ASSERT_EQUAL(c.queue_size, 1024);
	CU_ASSERT_EQUAL(c.indirect, VMM_ON);
	CU_ASSERT_EQUAL(c.event_idx, VMM_OFF);
	CU_ASSERT_EQUAL(c.in_order, VMM_OFF);
	CU_ASSERT_EQUAL(c.mergeable, VMM_OFF);
	CU_ASSERT_EQUAL(c.offload, VMM_ON);
	net_free(&c);

	c = net_ok("mem=echo,model=e1000");
	CU_ASSERT_STRING_EQUAL(c.memory, "echo");
	CU_ASSERT_STRING_EQUAL(c.model, "e1000");
	CU_ASSERT_FALSE(c.mac_set);
	CU_ASSERT_EQUAL(c.mergeable, VMM_DEFAULT);
	net_free(&c);
	c = net_ok("model=ne2k_pci,fd=0");
	CU_ASSERT_EQUAL(c.fd, 0);
	net_free(&c);
	c = net_ok("mem=sink");
	net_free(&c);
	c = net_ok("mem=source");
	net_free(&c);
}

static void net_user(void)
{
	struct net_config c = net_ok("user");
	char text[64];

	CU_ASSERT(c.user);
	CU_ASSERT_PTR_NULL(c.tap);
	CU_ASSERT_EQUAL(c.fd, -1);
	CU_ASSERT_EQUAL(c.nat.nforwards, 0);
	CU_ASSERT_EQUAL(c.nat.net, 0x0a000200);
	CU_ASSERT_EQUAL(c.nat.host, 0x0a000202);
	CU_ASSERT_EQUAL(c.nat.dns, 0x0a000203);
	CU_ASSERT_EQUAL(c.nat.dhcp_start, 0x0a00020f);
	CU_ASSERT_FALSE(c.nat.restricted);
	CU_ASSERT_FALSE(c.nat.ipv6);
	net_free(&c);

	c = net_ok("user,hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=udp:0.0.0.0:53-10.0.2.20:5353,"
		   "hostfwd=tcp::2222-:22,model=e1000,mac=52:54:00:12:34:99");
	CU_ASSERT_EQUAL(c.nat.nforwards, 3);
	CU_ASSERT_STRING_EQUAL(
		net_user_forward_print(&c.nat.forwards[0], text), "tcp:127.0.0.1:8080-:80");
	CU_ASSERT_STRING_EQUAL(
		net_user_forward_print(&c.nat.forwards[1], text), "udp:0.0.0.0:53-10.0.2.20:5353");
	CU_ASSERT_STRING_EQUAL(
		net_user_forward_print(&c.nat.forwards[2], text), "tcp:127.0.0.1:2222-:22");
	CU_ASSERT_STRING_EQUAL(c.model, "e1000");
	net_free(&c);

	c = net_ok("host=192.168.7.1,user,net=192.168.7.0/25,dns=192.168.7.100,"
		   "dhcpstart=192.168.7.50,hostname=a-b.c,restrict=on,ipv6=on");
	CU_ASSERT_EQUAL(c.nat.net, 0xc0a80700);
	CU_ASSERT_EQUAL(c.nat.prefix, 25);
	CU_ASSERT_EQUAL(c.nat.host, 0xc0a80701);
	CU_ASSERT_EQUAL(c.nat.dns, 0xc0a80764);
	CU_ASSERT_EQUAL(c.nat.dhcp_start, 0xc0a80732);
	CU_ASSERT_STRING_EQUAL(c.nat.hostname, "a-b.c");
	CU_ASSERT(c.nat.restricted);
	CU_ASSERT(c.nat.ipv6);
	net_free(&c);
	c = net_ok("tap=t,user=off");
	CU_ASSERT_FALSE(c.user);
	net_free(&c);
}

/* ------------------------------------------------------------------ what is wrong */

static void disk_mistakes(void)
{
	disk_bad("", W("key is missing"));
	disk_bad("path=a,", W("key is missing"));
	disk_bad("=a", W("key is missing"));
	disk_bad("model=ide", W("no image", "path=FILE", "fd=N"));
	disk_bad("path=", W("path=", "value is missing"));
	disk_bad("path", W("path=", "value is missing"));
	disk_bad("path=a,fd=3", W("fd=3", "one of them"));
	disk_bad("path=a,path=b", W("path", "twice"));
	disk_bad("path=a,ro,readonly=on", W("readonly", "twice"));
	disk_bad("path=a,colour=red", W("colour", "unknown key", "path", "engine", "serial"));
	disk_bad("path=a,model=floppy", W("model=floppy", "unknown model", "virtio-blk", "ide"));
	disk_bad("path=a,model=e1000", W("model=e1000", "net", "--net"));
	disk_bad("path=a,model=ide,ring=packed", W("ring=packed", "model ide", "virtio-blk"));
	disk_bad("path=a,mac=1", W("mac", "unknown key"));
	disk_bad("path=a,engine=foo",
		W("engine=foo", "unknown engine", "io_uring, aio, threads or auto"));
	disk_bad("path=a,direct=maybe", W("direct=maybe", "on, off or auto"));
	disk_bad("path=a,format=vmdk", W("format=vmdk", "unknown format", "raw, qcow2 or auto"));
	disk_bad("path=a,readonly=1", W("readonly=1", "on or off"));
	disk_bad("path=a,sqpoll=yes", W("sqpoll=yes", "on or off"));
	disk_bad("path=a,fault=", W("fault=", "value is missing"));
	disk_bad("path=a,fault=cahce", W("fault cahce", "known are"));
	disk_bad("path=a,fault=eio:5", W("eio=5", "OFFSET+LENGTH"));
	disk_bad("path=a,registered=no", W("registered=no", "on or off"));
	disk_bad("path=a,indirect=ON", W("indirect=ON", "on or off"));
	disk_bad("path=a,ring=round", W("ring=round", "split or packed"));
	disk_bad("path=a,queues=0", W("queues=0", "1 to 64"));
	disk_bad("path=a,queues=65", W("queues=65", "1 to 64"));
	disk_bad("path=a,queues=-1", W("queues=-1", "1 to 64"));
	disk_bad("path=a,queues=1x", W("queues=1x", "1 to 64"));
	disk_bad("path=a,queues=99999999999999999999999", W("queues=9", "1 to 64"));
	disk_bad("path=a,queue-size=1", W("queue-size=1", "2 to 1024"));
	disk_bad("path=a,queue-size=2048", W("queue-size=2048", "2 to 1024"));
	disk_bad("path=a,queue-size=100", W("queue-size=100", "power of two"));
	disk_bad("path=a,serial=123456789012345678901", W("serial=", "20"));
	disk_bad("path=a,serial=a\nb", W("serial=a?b", "printable"));
	disk_bad("fd=-1", W("fd=-1", "descriptor"));
	disk_bad("fd=99999999999", W("fd=9", "descriptor"));
	disk_bad("fd=a", W("fd=a", "descriptor"));
}

static void net_mistakes(void)
{
	net_bad("model=e1000", W("no port", "tap=NAME", "fd=N", "mem="));
	net_bad("tap=t,mem=sink", W("tap", "one of them"));
	net_bad("fd=3,mem=sink", W("fd", "one of them"));
	net_bad("tap=t,tap=u", W("tap", "twice"));
	net_bad("tap=a-name-of-16-chr", W("tap=", "15"));
	net_bad("tap=a/b", W("tap=a/b", "15"));
	net_bad("mem=void", W("mem=void", "sink, source or echo"));
	net_bad("tap=t,model=tulip",
		W("model=tulip", "unknown model", "virtio-net", "e1000", "ne2k_pci"));
	net_bad("tap=t,model=ide", W("model=ide", "--disk"));
	net_bad("tap=t,path=x", W("path", "unknown key", "tap", "mac"));
	net_bad("tap=t,model=e1000,queues=2", W("queues=2", "model e1000", "virtio-net"));
	net_bad("tap=t,mac=52:54:00:12:34", W("mac=", "52:54:00:12:34:56"));
	net_bad("tap=t,mac=52-54-00-12-34-56", W("mac=", "52:54:00:12:34:56"));
	net_bad("tap=t,mac=53:54:00:12:34:56", W("mac=", "group"));
	net_bad("tap=t,queues=17", W("queues=17", "1 to 16"));
	net_bad("fd=3,queues=2", W("queues=2", "tap=NAME"));
	net_bad("tap=t,mergeable=x", W("mergeable=x", "on or off"));
	net_bad("tap=t,offload=x", W("offload=x", "on or off"));
	net_bad("tap=t,queue-size=3", W("queue-size=3", "power of two"));
	net_bad("tap=t,ring=", W("ring=", "value is missing", "split|packed"));
}

static void net_user_mistakes(void)
{
	static const char one[] = ",hostfwd=tcp::1-:1";
	char text[8 + 33 * sizeof(one)] = "user";

	net_bad("user=maybe", W("user=maybe", "on or off"));
	net_bad("user=off", W("no port"));
	net_bad("user,user", W("user", "twice"));
	net_bad("user,tap=t", W("tap", "one of them"));
	net_bad("user,mem=sink", W("mem", "one of them"));
	net_bad("tap=t,hostfwd=tcp::1-:1", W("hostfwd=tcp::1-:1", "only with user"));
	net_bad("hostfwd=tcp::1-:1", W("hostfwd=", "--net user,hostfwd="));
	net_bad("mem=sink,restrict=on", W("restrict=on", "only with user"));
	net_bad("user,queues=2", W("queues=2", "tap=NAME"));
	net_bad("user,hostfwd", W("hostfwd=", "value is missing"));
	net_bad("user,hostfwd=8080-80", W("hostfwd=8080-80", "tcp:127.0.0.1:8080-:80"));
	net_bad("user,hostfwd=tcp:8080-:80", W("hostfwd=tcp:8080-:80", "ADDRESS"));
	net_bad("user,hostfwd=tcp::0-:80", W("hostfwd=", "0 is no port", "1 to 65535"));
	net_bad("user,hostfwd=tcp:here:1-:80", W("here", "127.0.0.1", "0.0.0.0"));
	net_bad("user,hostfwd=tcp::1-10.0.3.1:80", W("10.0.3.1", "10.0.2.1 to 10.0.2.254"));
	net_bad("user,net=10.0.2.0", W("net=10.0.2.0", "10.0.2.0/24"));
	net_bad("user,net=10.0.2.7/24", W("net=10.0.2.7/24", "use 10.0.2.0/24"));
	net_bad("user,net=10.0.2.0/30", W("/30", "/8 to /28"));
	net_bad("user,host=me", W("host=me", "10.0.2.2"));
	net_bad("user,host=10.0.2.3", W("dns=10.0.2.3", "router"));
	net_bad("user,dhcpstart=10.0.9.1", W("dhcpstart=10.0.9.1", "10.0.2.1 to 10.0.2.254"));
	net_bad("user,hostname=a b", W("hostname=a b", "letters"));
	net_bad("user,restrict=1", W("restrict=1", "on or off"));
	for (unsigned i = 0; i < 33; i++)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s", one);
	net_bad(text, W("hostfwd=", "at most 32"));
}

/* A value or key of any length still gives one line with its hint at the end. */
static void long_values(void)
{
	static const char head[] = "path=a,engine=";
	static char text[100000];

	memset(text, 'y', sizeof(text) - 1);
	for (size_t i = 0; i < sizeof(head) - 1; i++)
		text[i] = head[i];
	disk_bad(text, W("engine=yyy", "io_uring, aio, threads or auto"));
	memset(text, 'k', 64);
	disk_bad(text, W("kkk", "unknown key"));
	/* doubled commas: one key of commas, or an empty one after them */
	memset(text, ',', sizeof(text) - 1);
	disk_bad(text, W("key"));
	for (size_t i = 0; i + 1 < sizeof(text); i++)
		text[i] = i & 1 ? ',' : 'a';
	disk_bad(text, W("twice"));
}

static void sizes(void)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {{"0", 0}, {"4096K", 4096 << 10}, {"512M", 512ull << 20}, {"1G", 1ull << 30},
		{"2T", 2ull << 40}, {"1g", 1ull << 30}, {"3m", 3 << 20}, {"1GiB", 1ull << 30},
		{"1GB", 1ull << 30}, {"18446744073709551615", UINT64_MAX}};
	static const char *const bad[] = {"", "M", "1X", "1MM", "-1", "+1", " 1", "1.5G", "0x10",
		"18446744073709551616", "99999999999G", "17179869184G", "1 G", "1GiBs"};
	uint64_t bytes;

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		CU_ASSERT_EQUAL(vmm_size_parse(good[i].text, &bytes), 0);
		CU_ASSERT_EQUAL(bytes, good[i].bytes);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CU_ASSERT(vmm_size_parse(bad[i], &bytes) < 0);
}

/* The table names what the parser takes: each listed key is known to it, none twice. */
static void table_and_parser_agree(void)
{
	const struct model_info *info;
	struct disk_config disk;
	struct net_config net;
	struct balloon_config balloon;
	struct vsock_config vsock;
	char text[128];

	for (unsigned i = 0; (info = machine_model_info(i)); i++) {
		CU_ASSERT(!strcmp(info->way, "emulated") || !strcmp(info->way, "split"));
		CU_ASSERT(info->help[0] != '\0');
		CU_ASSERT_EQUAL(!strcmp(info->kind, "other"), info->option != NULL);
		for (const struct model_option *o = info->options; o->key; o++) {
			if (!strcmp(o->key, "model"))
				continue;
			snprintf(text, sizeof(text), "model=%s,%s=\t", info->name, o->key);
			if (!strcmp(info->kind, "disk")) {
				if (!disk_config_parse(&disk, text, why))
					disk_free(&disk);
			} else if (!strcmp(info->name, "virtio-balloon")) {
				snprintf(text, sizeof(text), "%s=\t", o->key);
				CU_ASSERT(balloon_config_parse(&balloon, text, why) < 0);
			} else if (!strcmp(info->name, "virtio-vsock")) {
				snprintf(text, sizeof(text), "%s=\t", o->key);
				CU_ASSERT(vsock_config_parse(&vsock, text, why) < 0);
			} else if (!net_config_parse(&net, text, why)) {
				net_free(&net);
			}
			CU_ASSERT_PTR_NULL(strstr(why, "unknown key"));
			CU_ASSERT_PTR_NULL(strstr(why, "no such option"));
			for (const struct model_option *p = info->options; p != o; p++)
				CU_ASSERT(strcmp(p->key, o->key) != 0);
		}
	}
	CU_ASSERT_PTR_NOT_NULL(machine_model_info(7));
	CU_ASSERT_PTR_NULL(machine_model_info(1000));
}

static void balloon(void)
{
	static const struct {
		const char *text, *pattern;
	} bad[] = {
		{"size=1000", "not a multiple of 4K"},
		{"size=much", "not a size"},
		{"size=", "a value is missing"},
		{"size", "a value is missing"},
		{"size=1M,size=2M", "given twice"},
		{"deflate-on-oom=yes", "use on or off"},
		{"ring=round", "use split or packed"},
		{"colour=red", "unknown key; use size, deflate-on-oom, free-page-reporting, ring"},
		{"", "a key is missing"},
		{"ro", "readonly: unknown key"},
	};
	struct balloon_config cfg;

	CU_ASSERT_EQUAL(balloon_config_parse(&cfg, "size=0", why), 0);
	CU_ASSERT(cfg.on && !cfg.size && !cfg.packed);
	CU_ASSERT_EQUAL(cfg.deflate_on_oom, VMM_DEFAULT);
	CU_ASSERT_EQUAL(
		balloon_config_parse(&cfg,
			"size=64M,deflate_on_oom=off,free_page_reporting=off,ring=packed", why),
		0);
	CU_ASSERT(cfg.on && cfg.size == 64u << 20 && cfg.packed);
	CU_ASSERT_EQUAL(cfg.deflate_on_oom, VMM_OFF);
	CU_ASSERT_EQUAL(cfg.reporting, VMM_OFF);
	CU_ASSERT_EQUAL(balloon_config_parse(&cfg, "free-page-reporting=on", why), 0);
	CU_ASSERT_EQUAL(cfg.reporting, VMM_ON);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		CU_ASSERT(balloon_config_parse(&cfg, bad[i].text, why) < 0);
		CU_ASSERT_PTR_NOT_NULL(strstr(why, bad[i].pattern));
		CU_ASSERT_PTR_NOT_NULL(strstr(why, "--balloon"));
		CU_ASSERT_FALSE(cfg.on);
	}
}

static void vsock_bad(const char *text, const char *const *words)
{
	struct vsock_config cfg;

	memset(why, 'x', sizeof(why));
	told(vsock_config_parse(&cfg, text, why), text, "--vsock ", words);
	CU_ASSERT_PTR_NULL(cfg.socket);
}

static void vsock_keys(void)
{
	struct machine_config m;

	machine_config_init(&m);
	CU_ASSERT_PTR_NULL(m.vsock.socket);
	CU_ASSERT_EQUAL_FATAL(vsock_config_parse(&m.vsock, "cid=3,socket=/a/b", why), 0);
	CU_ASSERT_STRING_EQUAL(m.vsock.socket, "/a/b");
	CU_ASSERT_EQUAL(m.vsock.cid, 3);
	CU_ASSERT_EQUAL(m.vsock.connections, 0);
	CU_ASSERT_FALSE(m.vsock.packed);
	machine_config_free(&m);
	CU_ASSERT_PTR_NULL(m.vsock.socket);
	CU_ASSERT_EQUAL_FATAL(
		vsock_config_parse(&m.vsock,
			"cid=4294967294,socket=x,,y,connections=7,"
			"ring=packed,queue-size=8,indirect=off,event-idx=off,in-order=on",
			why),
		0);
	CU_ASSERT_STRING_EQUAL(m.vsock.socket, "x,y");
	CU_ASSERT_EQUAL(m.vsock.cid, 4294967294u);
	CU_ASSERT_EQUAL(m.vsock.connections, 7);
	CU_ASSERT_EQUAL(m.vsock.queue_size, 8);
	CU_ASSERT(m.vsock.packed);
	CU_ASSERT_EQUAL(m.vsock.indirect, VMM_OFF);
	CU_ASSERT_EQUAL(m.vsock.event_idx, VMM_OFF);
	CU_ASSERT_EQUAL(m.vsock.in_order, VMM_ON);
	machine_config_free(&m);

	vsock_bad("cid=3", W("no socket", "socket=PATH"));
	vsock_bad("socket=a", W("no address", "cid=3"));
	vsock_bad("cid=2,socket=a", W("cid=2", "3 to 4294967294"));
	vsock_bad("cid=4294967295,socket=a", W("cid=4294967295", "3 to 4294967294"));
	vsock_bad("cid=x,socket=a", W("cid=x", "3 to"));
	vsock_bad("cid=3,socket=", W("socket", "missing"));
	vsock_bad("cid=3,socket=a,connections=0", W("connections=0", "1 to 32768"));
	vsock_bad("cid=3,socket=a,path=b", W("path", "unknown key", "socket"));
	vsock_bad("cid=3,cid=4,socket=a", W("cid", "twice"));
	disk_bad("path=a,model=virtio-vsock", W("virtio-vsock", "--vsock"));
}

static const struct unit_case cases[] = {
	{"disk: defaults", disk_defaults},
	{"disk: every key", disk_every_key},
	{"net: every key", net_every_key},
	{"disk: mistakes", disk_mistakes},
	{"net: mistakes", net_mistakes},
	{"net: user", net_user},
	{"net: user: mistakes", net_user_mistakes},
	{"long values", long_values},
	{"sizes", sizes},
	{"balloon", balloon},
	{"vsock", vsock_keys},
	{"table and parser agree", table_and_parser_agree},
};

UNIT_MAIN("options", cases)
