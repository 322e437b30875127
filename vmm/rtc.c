/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The clock and its memory: an MC146818 (Motorola data sheet ADI856R2) at ports 0x70 and 0x71,
 * interrupt 8, as an AT has it: 128 bytes, the century in byte 0x32.
 *
 * Nothing runs while nobody asks: time and the flags of register C are worked out when they are
 * read, from the host's monotonic clock and what it showed when the time was last set. A timer on
 * the I/O thread is armed only for interrupts that are enabled.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>
#include <time.h>

#include "vmm/machine_priv.h"

#define BOOT_NO_FLOPPY_CHECK 1u /* a boot sector without its mark will do on a floppy */
#define RTC_PORT             0x70u
#define RTC_IRQ              8u
#define RTC_BYTES            128u
#define RTC_SECOND           1000000000ull
#define RTC_UIP_NS           244000ull /* "update in progress" goes up that long before an update */
#define RTC_CRYSTAL          32768ull
#define RTC_NEVER            UINT64_MAX
#define RTC_DAY              86400u
#define RTC_YEAR_MAX         9999

enum {
	R_SECONDS = 0,
	R_SECONDS_ALARM = 1,
	R_MINUTES = 2,
	R_MINUTES_ALARM = 3,
	R_HOURS = 4,
	R_HOURS_ALARM = 5,
	R_WEEKDAY = 6,
	R_DAY = 7,
	R_MONTH = 8,
	R_YEAR = 9,
	R_A = 10,
	R_B = 11,
	R_C = 12,
	R_D = 13,
	R_CENTURY = 0x32,
};

#define A_UIP        0x80u
#define A_DIVIDER    0x70u
#define A_RUNNING    0x20u /* the divider for a crystal of 32,768 Hz */
#define A_RATE       0x0fu
#define B_SET        0x80u
#define B_PERIODIC   0x40u
#define B_ALARM      0x20u
#define B_UPDATE     0x10u
#define B_SQUARE     0x08u
#define B_BINARY     0x04u
#define B_24H        0x02u
#define C_IRQ        0x80u
#define C_EVENTS     0x70u /* the same bits as in B */
#define D_VALID      0x80u
#define HOUR_PM      0x80u
#define ALARM_ANY    0xc0u
#define NVRAM_SHIFT  0x0fu
#define PORT_NMI_OFF 0x80u

/* The numbers 1 to 4 of the boot order. */
static const char boot_letters[] = "acdn";

struct rtc {
	struct device device;
	struct bus_region region;
	struct irq_source irq;
	uint8_t index;
	uint8_t bytes[RTC_BYTES]; /* the time registers count only while B_SET is set */
	int64_t base_s;           /* seconds since 1970 on the clock at host time base_ns */
	uint64_t base_ns;
	uint64_t seen_ns; /* register C knows of everything up to here */
	struct io_thread *io;
	struct io_work arm_work;
	struct io_timer timer;
	_Atomic uint64_t wanted_ns; /* when the timer should expire; 0: never */
};

/* ------------------------------------------------------------------ the time */

static bool rtc_counts(const struct rtc *rtc)
{
	return (rtc->bytes[R_A] & A_DIVIDER) == A_RUNNING && !(rtc->bytes[R_B] & B_SET);
}

static uint64_t rtc_ticks_ns(const struct rtc *rtc, uint64_t now)
{
	return now > rtc->base_ns ? now - rtc->base_ns : 0;
}

static int64_t rtc_seconds(const struct rtc *rtc, uint64_t now)
{
	return rtc->base_s + (int64_t)(rtc_ticks_ns(rtc, now) / RTC_SECOND);
}

static uint8_t rtc_encode(const struct rtc *rtc, unsigned v)
{
	return rtc->bytes[R_B] & B_BINARY ? v : v / 10 % 10 << 4 | v % 10;
}

static unsigned rtc_decode(const struct rtc *rtc, uint8_t v)
{
	return rtc->bytes[R_B] & B_BINARY ? v : (v >> 4) * 10u + (v & 0xf);
}

static uint8_t rtc_hour_encode(const struct rtc *rtc, unsigned hour)
{
	if (rtc->bytes[R_B] & B_24H)
		return rtc_encode(rtc, hour);
	return rtc_encode(rtc, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOUR_PM : 0);
}

static unsigned rtc_hour_decode(const struct rtc *rtc, uint8_t v)
{
	if (rtc->bytes[R_B] & B_24H)
		return rtc_decode(rtc, v);
	return rtc_decode(rtc, v & 0x7f) % 12 + (v & HOUR_PM ? 12 : 0);
}

/* Into the registers, as they read at that second. */
static void rtc_show(struct rtc *rtc, int64_t seconds)
{
	time_t t = seconds;
	struct tm tm;

	if (!gmtime_r(&t, &tm))
		return;
	rtc->bytes[R_SECONDS] = rtc_encode(rtc, tm.tm_sec);
	rtc->bytes[R_MINUTES] = rtc_encode(rtc, tm.tm_min);
	rtc->bytes[R_HOURS] = rtc_hour_encode(rtc, tm.tm_hour);
	rtc->bytes[R_WEEKDAY] = rtc_encode(rtc, tm.tm_wday + 1);
	rtc->bytes[R_DAY] = rtc_encode(rtc, tm.tm_mday);
	rtc->bytes[R_MONTH] = rtc_encode(rtc, tm.tm_mon + 1);
	rtc->bytes[R_YEAR] = rtc_encode(rtc, (tm.tm_year + 1900) % 100);
	rtc->bytes[R_CENTURY] = rtc_encode(rtc, (tm.tm_year + 1900) / 100 % 100);
}

/* From the registers. What is no date is made one, as mktime() does. */
static int64_t rtc_shown(const struct rtc *rtc)
{
	int year =
		rtc_decode(rtc, rtc->bytes[R_CENTURY]) * 100 + rtc_decode(rtc, rtc->bytes[R_YEAR]);
	struct tm tm = {
		.tm_sec = rtc_decode(rtc, rtc->bytes[R_SECONDS]),
		.tm_min = rtc_decode(rtc, rtc->bytes[R_MINUTES]),
		.tm_hour = rtc_hour_decode(rtc, rtc->bytes[R_HOURS]),
		.tm_mday = rtc_decode(rtc, rtc->bytes[R_DAY]),
		.tm_mon = (int)rtc_decode(rtc, rtc->bytes[R_MONTH]) - 1,
		.tm_year = MIN(year, RTC_YEAR_MAX) - 1900,
	};

	return timegm(&tm);
}

/* The clock shows `seconds` now; the fraction of a second that has passed is kept. */
static void rtc_set(struct rtc *rtc, int64_t seconds, uint64_t now)
{
	rtc->base_s += seconds - rtc_seconds(rtc, now);
}

static void rtc_set_host(struct rtc *rtc, int64_t offset_s)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	rtc->base_s = ts.tv_sec + offset_s;
	rtc->base_ns = clock_now_ns() - ts.tv_nsec;
	rtc->seen_ns = rtc->base_ns + ts.tv_nsec;
}

/* ------------------------------------------------------------------ events */

/* 0: none. Rates 1 and 2 are those of 8 and 9 with this crystal. */
static uint64_t rtc_period_ticks(const struct rtc *rtc)
{
	unsigned rate = rtc->bytes[R_A] & A_RATE;

	if (!rate || (rtc->bytes[R_A] & A_DIVIDER) != A_RUNNING)
		return 0;
	return 1ull << ((rate < 3 ? rate + 7 : rate) - 1);
}

static uint64_t rtc_crystal(uint64_t ns)
{
	return ns / RTC_SECOND * RTC_CRYSTAL + ns % RTC_SECOND * RTC_CRYSTAL / RTC_SECOND;
}

static uint64_t rtc_crystal_ns(uint64_t ticks)
{
	return ticks / RTC_CRYSTAL * RTC_SECOND +
	       (ticks % RTC_CRYSTAL * RTC_SECOND + RTC_CRYSTAL - 1) / RTC_CRYSTAL;
}

static uint64_t rtc_next_periodic(const struct rtc *rtc, uint64_t after)
{
	uint64_t period = rtc_period_ticks(rtc);

	if (!period)
		return RTC_NEVER;
	return rtc->base_ns +
	       rtc_crystal_ns((rtc_crystal(rtc_ticks_ns(rtc, after)) / period + 1) * period);
}

static uint64_t rtc_next_update(const struct rtc *rtc, uint64_t after)
{
	if (!rtc_counts(rtc))
		return RTC_NEVER;
	return rtc->base_ns + (rtc_ticks_ns(rtc, after) / RTC_SECOND + 1) * RTC_SECOND;
}

static bool rtc_alarm_matches(uint8_t alarm, unsigned decoded, unsigned value)
{
	return (alarm & ALARM_ANY) == ALARM_ANY || decoded == value;
}

/* Steps over whole hours and minutes that do not match: some 170 steps at most. */
static uint64_t rtc_next_alarm(const struct rtc *rtc, uint64_t after)
{
	const uint8_t *b = rtc->bytes;
	unsigned hour = rtc_hour_decode(rtc, b[R_HOURS_ALARM]);
	unsigned minute = rtc_decode(rtc, b[R_MINUTES_ALARM]);
	unsigned second = rtc_decode(rtc, b[R_SECONDS_ALARM]);
	int64_t first = rtc_seconds(rtc, after) + 1;
	unsigned start = (unsigned)((first % RTC_DAY + RTC_DAY) % RTC_DAY), at = start;

	if (!rtc_counts(rtc))
		return RTC_NEVER;
	while (at <= start + RTC_DAY) {
		unsigned s = at % RTC_DAY;

		if (!rtc_alarm_matches(b[R_HOURS_ALARM], hour, s / 3600))
			at = (at / 3600 + 1) * 3600;
		else if (!rtc_alarm_matches(b[R_MINUTES_ALARM], minute, s / 60 % 60))
			at = (at / 60 + 1) * 60;
		else if (!rtc_alarm_matches(b[R_SECONDS_ALARM], second, s % 60))
			at++;
		else
			return rtc->base_ns +
			       (uint64_t)(first + (at - start) - rtc->base_s) * RTC_SECOND;
	}
	return RTC_NEVER;
}

/* Register C, up to now. */
static void rtc_events_see(struct rtc *rtc, uint64_t now)
{
	if (rtc_next_periodic(rtc, rtc->seen_ns) <= now)
		rtc->bytes[R_C] |= B_PERIODIC;
	if (rtc_next_update(rtc, rtc->seen_ns) <= now)
		rtc->bytes[R_C] |= B_UPDATE;
	if (rtc_next_alarm(rtc, rtc->seen_ns) <= now)
		rtc->bytes[R_C] |= B_ALARM;
	rtc->seen_ns = MAX(rtc->seen_ns, now);
}

/* The line, and the timer for the next event that would raise it. */
static void rtc_update(struct rtc *rtc, uint64_t now)
{
	uint8_t enabled = rtc->bytes[R_B] & C_EVENTS;
	bool level = rtc->bytes[R_C] & enabled;
	uint64_t next = RTC_NEVER;

	rtc->bytes[R_C] = (rtc->bytes[R_C] & C_EVENTS) | (level ? C_IRQ : 0);
	if (level && !rtc->irq.level)
		counter_add(&rtc->device.counters.interrupts, 1);
	irq_source_set(&rtc->irq, level);
	if (!level && (enabled & B_PERIODIC))
		next = MIN(next, rtc_next_periodic(rtc, now));
	if (!level && (enabled & B_UPDATE))
		next = MIN(next, rtc_next_update(rtc, now));
	if (!level && (enabled & B_ALARM))
		next = MIN(next, rtc_next_alarm(rtc, now));
	next = next == RTC_NEVER ? 0 : next;
	if (atomic_exchange(&rtc->wanted_ns, next) != next && rtc->io)
		io_thread_post(rtc->io, &rtc->arm_work);
}

static void rtc_arm(struct io_work *w)
{
	struct rtc *rtc = (struct rtc *)((char *)w - offsetof(struct rtc, arm_work));

	io_timer_set(rtc->io, &rtc->timer, atomic_load(&rtc->wanted_ns));
}

static void rtc_expired(struct io_timer *t)
{
	struct rtc *rtc = (struct rtc *)((char *)t - offsetof(struct rtc, timer));
	uint64_t now;

	pthread_mutex_lock(&rtc->device.lock);
	now = clock_now_ns();
	if (atomic_load(&rtc->wanted_ns)) {
		/* so that the next one is armed even at the same time */
		atomic_store(&rtc->wanted_ns, 0);
		rtc_events_see(rtc, now);
		rtc_update(rtc, now);
	}
	pthread_mutex_unlock(&rtc->device.lock);
}

/* ------------------------------------------------------------------ registers */

static bool rtc_is_time(unsigned reg)
{
	return (reg <= R_YEAR && (reg > R_HOURS_ALARM || !(reg & 1))) || reg == R_CENTURY;
}

static uint8_t rtc_register_read(struct rtc *rtc, unsigned reg)
{
	uint64_t now = clock_now_ns();
	uint8_t value;

	switch (reg) {
	case R_A:
		value = rtc->bytes[R_A];
		if (rtc_counts(rtc) &&
			rtc_ticks_ns(rtc, now) % RTC_SECOND >= RTC_SECOND - RTC_UIP_NS)
			value |= A_UIP;
		return value;
	case R_C:
		rtc_events_see(rtc, now);
		rtc_update(rtc, now);
		value = rtc->bytes[R_C];
		rtc->bytes[R_C] = 0;
		rtc_update(rtc, now);
		return value;
	case R_D:
		return D_VALID;
	default:
		if (rtc_is_time(reg) && rtc_counts(rtc))
			rtc_show(rtc, rtc_seconds(rtc, now));
		return rtc->bytes[reg];
	}
}

/* Begins or ends what stops the clock; the registers hold the time in between. */
static void rtc_control_write(struct rtc *rtc, unsigned reg, uint8_t value, uint64_t now)
{
	bool counted = rtc_counts(rtc);
	bool divided = (rtc->bytes[R_A] & A_DIVIDER) == A_RUNNING;
	int64_t shown;

	rtc_events_see(rtc, now);
	if (counted)
		rtc_show(rtc, rtc_seconds(rtc, now));
	shown = rtc_shown(rtc);
	if (reg == R_A)
		rtc->bytes[R_A] = value & ~A_UIP;
	else
		rtc->bytes[R_B] = value & B_SET ? value & ~B_UPDATE : value;
	/* the first update comes half a second after the divider starts */
	if (!divided && (rtc->bytes[R_A] & A_DIVIDER) == A_RUNNING) {
		rtc->base_s = shown;
		rtc->base_ns = now - RTC_SECOND / 2;
		rtc->seen_ns = now;
	}
	if (!rtc_counts(rtc))
		return;
	if (!counted)
		rtc_set(rtc, shown, now);
	/* the same time in what may be another format */
	rtc_show(rtc, rtc_seconds(rtc, now));
}

static void rtc_register_write(struct rtc *rtc, unsigned reg, uint8_t value)
{
	uint64_t now = clock_now_ns();

	switch (reg) {
	case R_A:
	case R_B:
		rtc_control_write(rtc, reg, value, now);
		break;
	case R_C:
	case R_D:
		return;
	default:
		rtc_events_see(rtc, now);
		if (rtc_is_time(reg) && rtc_counts(rtc)) {
			rtc_show(rtc, rtc_seconds(rtc, now));
			rtc->bytes[reg] = value;
			rtc_set(rtc, rtc_shown(rtc), now);
		}
		rtc->bytes[reg] = value;
		break;
	}
	rtc_update(rtc, now);
}

static uint64_t rtc_read(void *opaque, uint64_t offset, unsigned size)
{
	struct rtc *rtc = opaque;

	(void)size;
	return offset ? rtc_register_read(rtc, rtc->index) : UINT64_MAX;
}

static void rtc_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct rtc *rtc = opaque;

	if (!offset)
		rtc->index = value & (PORT_NMI_OFF - 1);
	if (offset || size > 1)
		rtc_register_write(rtc, rtc->index, offset ? value : value >> 8);
}

/* ------------------------------------------------------------------ life */

static uint8_t boot_number(char letter)
{
	const char *at = letter ? strchr(boot_letters, letter) : NULL;

	return at ? (uint8_t)(at - boot_letters + 1) : 0;
}

int vmm_boot_parse(const char *text, char out[4])
{
	size_t n = strlen(text);

	if (!n || n > 3)
		return -EINVAL;
	for (size_t i = 0; i < n; i++)
		if (!strchr(boot_letters, text[i]) || strchr(text + i + 1, text[i]))
			return -EINVAL;
	memcpy(out, text, n + 1);
	return 0;
}

/* What firmware keeps there about memory and processors. */
static void rtc_nvram_fill(struct rtc *rtc)
{
	struct machine *m = rtc->device.machine;
	uint64_t low = m->mem.regions[0].size, high = m->memory_size - low;
	uint32_t kib = MIN((low - (1 << 20)) >> 10, 0xffffu);
	uint32_t blocks = low > 16 << 20 ? MIN((low - (16 << 20)) >> 16, 0xffffu) : 0;
	uint8_t *b = rtc->bytes;

	b[0x14] = 0x06; /* coprocessor, PS/2 mouse */
	b[0x15] = 640 & 0xff;
	b[0x16] = 640 >> 8;
	b[0x17] = b[0x30] = kib;
	b[0x18] = b[0x31] = kib >> 8;
	b[0x34] = blocks;
	b[0x35] = blocks >> 8;
	b[0x5b] = high >> 16;
	b[0x5c] = high >> 24;
	b[0x5d] = high >> 32;
	b[0x5f] = m->cfg.cpus - 1;
	/* as QEMU's firmware reads it: the first two of the boot order, and the third */
	b[0x3d] = (uint8_t)(boot_number(m->cfg.boot[0]) | boot_number(m->cfg.boot[1]) << 4);
	b[0x38] = (uint8_t)(boot_number(m->cfg.boot[2]) << 4 | BOOT_NO_FLOPPY_CHECK);
}

/* The battery keeps time and memory over a reset. */
static void rtc_reset(struct device *d)
{
	struct rtc *rtc = (struct rtc *)d;
	uint64_t now;

	pthread_mutex_lock(&d->lock);
	now = clock_now_ns();
	rtc->index = 0;
	rtc->bytes[R_B] &= (uint8_t) ~(C_EVENTS | B_SQUARE);
	rtc->bytes[R_C] = 0;
	rtc->bytes[NVRAM_SHIFT] = 0;
	rtc->seen_ns = MAX(rtc->seen_ns, now);
	rtc_update(rtc, now);
	pthread_mutex_unlock(&d->lock);
}

static void rtc_timer_cancel(void *ctx)
{
	struct rtc *rtc = ctx;

	atomic_store(&rtc->wanted_ns, 0);
	io_timer_set(rtc->io, &rtc->timer, 0);
}

static void rtc_quiesce(struct device *d)
{
	struct rtc *rtc = (struct rtc *)d;

	pthread_mutex_lock(&d->lock);
	atomic_store(&rtc->wanted_ns, 0);
	pthread_mutex_unlock(&d->lock);
	if (rtc->io)
		io_thread_call(rtc->io, rtc_timer_cancel, rtc);
}

static void rtc_resume(struct device *d)
{
	struct rtc *rtc = (struct rtc *)d;
	uint64_t now;

	pthread_mutex_lock(&d->lock);
	now = clock_now_ns();
	rtc_events_see(rtc, now);
	rtc_update(rtc, now);
	pthread_mutex_unlock(&d->lock);
}

static void rtc_save(struct device *d, struct state_writer *w)
{
	struct rtc *rtc = (struct rtc *)d;
	uint64_t now = clock_now_ns();
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	if (rtc_counts(rtc))
		rtc_show(rtc, rtc_seconds(rtc, now));
	state_section_begin(w, d->name, 1);
	state_put_u8(w, rtc->index);
	state_put_bytes(w, rtc->bytes, sizeof(rtc->bytes));
	/* how far it is from the host's: the time goes on while the machine is a file */
	state_put_u64(w, (uint64_t)(rtc_seconds(rtc, now) - ts.tv_sec));
	state_section_end(w);
}

static void rtc_load(struct device *d, struct state_reader *r)
{
	struct rtc *rtc = (struct rtc *)d;
	int64_t offset;

	state_section_enter(r, d->name, 1);
	rtc->index = state_get_u8(r) & (PORT_NMI_OFF - 1);
	state_get_bytes(r, rtc->bytes, sizeof(rtc->bytes));
	rtc->bytes[R_A] &= (uint8_t)~A_UIP;
	rtc->bytes[R_C] &= C_EVENTS;
	offset = (int64_t)state_get_u64(r);
	/* some ten thousand years either way */
	if (!r->error && (offset > 1ll << 39 || offset < -(1ll << 39)))
		r->error = -EINVAL;
	state_section_leave(r);
	if (r->error)
		return;
	rtc_set_host(rtc, offset);
	irq_source_set(&rtc->irq, rtc->bytes[R_C] & rtc->bytes[R_B] & C_EVENTS);
}

static void rtc_destroy(struct device *d)
{
	struct rtc *rtc = (struct rtc *)d;

	bus_unmap(d->machine, &rtc->region);
	/* who accessed ports of a quiesced machine may have armed it again */
	if (rtc->io)
		io_thread_call(rtc->io, rtc_timer_cancel, rtc);
	free(rtc);
}

static const struct device_ops rtc_ops = {
	.reset = rtc_reset,
	.quiesce = rtc_quiesce,
	.resume = rtc_resume,
	.save = rtc_save,
	.load = rtc_load,
	.destroy = rtc_destroy,
};

int rtc_create(struct machine *m)
{
	struct rtc *rtc = calloc(1, sizeof(*rtc));

	if (!rtc)
		return -ENOMEM;
	device_add(m, &rtc->device, &rtc_ops, "rtc");
	irq_source_init(&rtc->irq, m, RTC_IRQ);
	rtc->io = m->nio ? m->io[0] : NULL;
	rtc->arm_work.run = rtc_arm;
	rtc->timer.expired = rtc_expired;
	rtc->bytes[R_A] = A_RUNNING | 6; /* 1024 Hz */
	rtc->bytes[R_B] = B_24H;
	rtc_set_host(rtc, 0);
	rtc_nvram_fill(rtc);
	rtc->region = (struct bus_region){
		.base = RTC_PORT,
		.size = 2,
		.kind = BUS_PIO,
		.read = rtc_read,
		.write = rtc_write,
		.opaque = rtc,
		.lock = &rtc->device.lock,
		.counters = &rtc->device.counters,
	};
	return bus_map(m, &rtc->region);
}
