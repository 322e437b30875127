/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of perf/ share. `sluice bench` measures contenders (a device model and the way it
 * is driven) doing works (what the guest is asked to do), over the same image and the same ports.
 *
 * Each measurement is a machine of its own in a child process: the parent has no threads, a run
 * that goes wrong takes nothing with it, and the CPU time of the child is the CPU time of the run.
 *
 * Units: bytes, nanoseconds (_ns).
 */
#ifndef BENCH_PRIV_H
#define BENCH_PRIV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "vmm/vmm.h"

#define BENCH_RUNS_MAX    16u
#define BENCH_WORKS_MAX   64u
#define BENCH_BUCKETS_MAX 64u
#define BENCH_NOTE_MAX    160u
#define BENCH_RESULTS_MAX 512u

/* The port the guest writes (job << 8 | mark) to around the measured period of each job. */
#define BENCH_MARK_PORT  0x5e0u
#define BENCH_MARK_BEGIN 1u
#define BENCH_MARK_END   2u

enum bench_port { BENCH_PORT_NONE, BENCH_PORT_MEMORY, BENCH_PORT_TAP };

struct bench_contender {
	const char *device;   /* the model's name */
	const char *transfer; /* "pio", "dma" or "ring" */
	const char *ring;     /* "split", "packed", or "" for emulated devices */
	const char *label;    /* in tables */
	bool net;
	bool split;
	void (*change)(struct machine_config *cfg); /* of an ablation: takes its step away */
};

struct bench_work {
	const char *work; /* "randread", "randwrite", "seqread", "seqwrite", "tx", "rx", "echo" */
	uint32_t size;
	uint32_t depth;
	uint32_t queues;
	enum bench_port port;
};

struct bench_bucket {
	uint64_t ns;
	uint64_t count;
};

/* One run of one work by one contender. */
struct bench_sample {
	bool valid;
	uint64_t requests, bytes, ns;
	uint64_t errors, verified;
	uint64_t latency_samples, p50_ns, p99_ns, p999_ns;
	/* host side, between the marks */
	uint64_t exits, doorbells, interrupts, system_calls, cpu_ns;
	uint32_t nbuckets;
	struct bench_bucket buckets[BENCH_BUCKETS_MAX];
	char engine[16]; /* what the disk really used */
	bool direct;
	char note[BENCH_NOTE_MAX]; /* why not valid, or a remark */
};

struct bench_result {
	const struct bench_contender *contender;
	struct bench_work work;
	unsigned nsamples;
	struct bench_sample *samples;
};

/* The same work done by a program on the host, outside any guest. */
struct bench_baseline {
	const char *program; /* "fio" */
	struct bench_work work;
	double per_s; /* median */
	double min_per_s, max_per_s;
	unsigned runs;
	char engine[16];
	char note[BENCH_NOTE_MAX];
};

struct bench_options {
	const char *image; /* NULL: a temporary one */
	uint64_t image_size;
	const char *guest;  /* the guest's ELF */
	const char *json;   /* file, or NULL */
	const char *report; /* folder, or NULL */
	const char *engine; /* blk engine for every disk */
	const char *direct;
	const char *only; /* substring that a contender's label or a work's name must contain; NULL:
			     all */
	unsigned runs;
	unsigned run_ms;
	unsigned poll_us;
	bool poll_set;
	bool quick;
	bool full;
	bool no_tap;
	bool no_fio;
	bool ablate;
	bool quiet;
};

/* What the monitor itself costs. */
struct bench_monitor {
	bool valid;
	double first_output_ms, first_output_min_ms, first_output_max_ms; /* from exec */
	double resident_kib;                                              /* beyond guest memory */
	double idle_cpu_percent; /* of one core, the guest halting */
};

struct bench {
	struct bench_options opts;
	const struct bench_contender *contenders;
	unsigned ncontenders;
	struct bench_result results[BENCH_RESULTS_MAX];
	unsigned nresults;
	struct bench_baseline baselines[16];
	unsigned nbaselines;
	char left_out[8][BENCH_NOTE_MAX]; /* what was not measured, and why */
	unsigned nleft_out;
	int image_fd;
	char image_path[64];
	struct bench_monitor monitor;
};

/* plan.c: the works of a run, in the order in which they are done. */
unsigned bench_plan(const struct bench_options *opts, bool net, enum bench_port port,
	const struct bench_contender *contender, struct bench_work *works, unsigned max);
extern const struct bench_contender bench_contenders[];
extern const unsigned bench_ncontenders;

/* image.c: an image in which every sector says where it is. */
int bench_image_make(const char *path, uint64_t size, char why[VMM_WHY_MAX]);
int bench_image_open(struct bench *b, char why[VMM_WHY_MAX]);

/* run.c: boots the guest once with all works of one contender; fills samples[nworks]. 0, or -errno
 * with `why`. */
int bench_run(const struct bench *b, const struct bench_contender *contender,
	const struct bench_work *works, unsigned nworks, struct bench_sample *samples,
	char why[VMM_WHY_MAX]);

/* peer.c: the far ends of network ports. */
struct bench_peer;
int bench_peer_create(struct bench_peer **out, const struct bench_work *work, unsigned queues,
	char why[VMM_WHY_MAX]);
struct net_port *bench_peer_port(
	struct bench_peer *p); /* given to the machine, which then owns it */
void bench_peer_counts(const struct bench_peer *p, uint64_t *good, uint64_t *bad);
void bench_peer_destroy(struct bench_peer *p);
/* Can a tap be made here? -EPERM ... with `why`. */
int bench_tap_probe(char why[VMM_WHY_MAX]);

/* fio.c: baselines on the host. */
int bench_fio(const struct bench *b, const struct bench_work *work, struct bench_baseline *out);
int bench_fio_probe(void);

/* monitor.c: start-up, memory and idling of `sluice run`. */
int bench_monitor(struct bench *b);

/* facts.c: the host, as key and value. */
struct bench_fact {
	char key[24];
	char value[128];
};
unsigned bench_facts(const struct bench *b, struct bench_fact *out, unsigned max);

/* summary.c: figures over the runs of one result. */
struct bench_summary {
	unsigned runs; /* valid ones */
	double per_s, bytes_per_s, min_per_s, max_per_s;
	double p50_us, p99_us, p999_us; /* negative: not enough samples */
	double exits, doorbells, interrupts, system_calls, cpu_us; /* per request */
	uint64_t requests, errors, verified, latency_samples;
	char engine[16];
	bool direct;
	const char *note;
};
void bench_summarize(const struct bench_result *r, struct bench_summary *out);
unsigned bench_histogram_merge(
	const struct bench_result *r, struct bench_bucket *out, unsigned max);
bool bench_work_same(const struct bench_work *a, const struct bench_work *b);
void bench_work_name(const struct bench_work *w, char *out, size_t size);

/* ablate.c: who lacks what, the result of the same work with nothing lacking, with by without. */
extern const struct bench_contender bench_ablations[];
extern const unsigned bench_nablations;
const struct bench_result *bench_ablation_whole(
	const struct bench *b, const struct bench_result *without);
bool bench_ablation_ratio(const struct bench_result *whole, const struct bench_result *without,
	double *median, double *least, double *most);
void bench_ablation_print(const struct bench *b, FILE *out);

/* table.c, goals.c, json.c, report.c */
void bench_table_print(const struct bench *b, FILE *out);
void bench_goals_print(const struct bench *b, FILE *out);
int bench_json_write(const struct bench *b, const char *path, char why[VMM_WHY_MAX]);
int bench_report_write(const struct bench *b, const char *dir, char why[VMM_WHY_MAX]);

#endif
