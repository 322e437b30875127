/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The notification protocol of ring/, both directions at once: the driver publishes requests and
 * rings the doorbell, the device publishes completions and interrupts, and each goes to sleep when
 * there is nothing for it to do. A lost wake-up is a state in which the driver sleeps for ever: spin
 * reports it as an invalid end state.
 *
 * Plain Promela is sequentially consistent and could not see a missing barrier. So each side's stores
 * go into a FIFO of its own (x86's store buffer) and reach memory when a flusher process gets to it;
 * the full barrier waits until the FIFO is empty. No variable is written by both sides, and neither
 * side reads its own, so loads need no forwarding.
 *
 * Compared with the code: PUBLISHER below is ring_driver_publish() + ring_driver_needs_doorbell() and
 * ring_device_push() + ring_device_needs_interrupt(); SLEEPER is ring_device_doorbell_on() and
 * ring_driver_interrupt_on().
 *
 * EVENT_IDX            event indices instead of on/off flags
 * DIRECTION            what the next ones break: 0 doorbells, 1 interrupts
 * NO_BARRIER_PUBLISHER no barrier between publishing and reading the other side's wish
 * NO_BARRIER_SLEEPER   no barrier between writing the wish and looking once more
 * NO_BARRIER           neither
 * NO_SECOND_LOOK       no look between writing the wish and sleeping
 */
#define REQUESTS 6
#define QUEUE    2 /* at most so many in flight */
#define MODULO   8 /* positions count modulo this, and start where they soon wrap */
#define START    6

#define AVAIL 0 /* written by the driver */
#define INTR  1
#define USED  2 /* written by the device */
#define BELL  3

#ifdef NO_BARRIER
#define NO_BARRIER_PUBLISHER
#define NO_BARRIER_SLEEPER
#endif
#ifndef DIRECTION
#define DIRECTION 2
#endif

#define NEXT(x) (((x) + 1) % MODULO)
#define PREV(x) (((x) + MODULO - 1) % MODULO)

#ifdef EVENT_IDX
#define WISH_ON(position)  (position)
#define WISH_OFF(position) PREV(position)
#define WANTED(wish, now, before)                                                                  \
	((((now) + 2 * MODULO - (wish) - 1) % MODULO) < (((now) + MODULO - (before)) % MODULO))
#define WISH_START START
#else
#define WISH_ON(position)         1
#define WISH_OFF(position)        0
#define WANTED(wish, now, before) ((wish) == 1)
#define WISH_START                1
#endif

byte memory[4];
bool doorbell;  /* the eventfds: a signal sent before the wait is kept */
bool interrupt;
chan driver_stores = [3] of { byte, byte };
chan device_stores = [3] of { byte, byte };

init
{
	atomic {
		memory[AVAIL] = START;
		memory[USED] = START;
		memory[INTR] = WISH_START;
		memory[BELL] = WISH_START;
		run driver();
		run device();
		run flusher(driver_stores);
		run flusher(device_stores);
	}
}

proctype flusher(chan stores)
{
	byte where, what;

end_idle:
	do
	:: atomic { stores ? where, what -> memory[where] = what }
	od
}

inline barrier(stores)
{
	empty(stores)
}

inline publisher_barrier(direction, stores)
{
#ifdef NO_BARRIER_PUBLISHER
	if
	:: direction == DIRECTION
	:: direction != DIRECTION -> barrier(stores)
	fi
#else
	barrier(stores)
#endif
}

inline sleeper_barrier(direction, stores)
{
#ifdef NO_BARRIER_SLEEPER
	if
	:: direction == DIRECTION
	:: direction != DIRECTION -> barrier(stores)
	fi
#else
	barrier(stores)
#endif
}

#ifdef NO_SECOND_LOOK
#define LOOKS(direction) (direction != DIRECTION)
#else
#define LOOKS(direction) true
#endif

proctype driver()
{
	byte added = START, published = START, asked = START, got = START;
	byte sent, collected, wish;

	do
	:: collected == REQUESTS -> break
	:: sent < REQUESTS && sent - collected < QUEUE ->
		atomic { sent++; added = NEXT(added) }
	:: published != added ->
		atomic { driver_stores ! AVAIL, added; published = added }
		publisher_barrier(0, driver_stores);
		wish = memory[BELL];
		if
		:: WANTED(wish, published, asked) ->
			/* The system call or exit drains the buffer, whatever came before. */
			atomic { empty(driver_stores) -> doorbell = true }
		:: else
		fi;
		atomic { asked = published; wish = 0 }
	:: memory[USED] != got ->
		atomic { got = NEXT(got); collected++ }
	:: published == added && (sent == REQUESTS || sent - collected == QUEUE) &&
		memory[USED] == got && collected < REQUESTS ->
		if
		:: driver_stores ! INTR, WISH_ON(got)
#ifdef EVENT_IDX
		/* Ask for the last of those in flight only. */
		:: driver_stores ! INTR, PREV(added)
#endif
		fi;
		sleeper_barrier(1, driver_stores);
		if
		:: LOOKS(1) && memory[USED] != got
		:: !LOOKS(1) || memory[USED] == got ->
			atomic { interrupt -> interrupt = false }
		fi;
		if
		:: driver_stores ! INTR, WISH_OFF(got)
		:: true /* off is only a hint */
		fi
	od
}

proctype device()
{
	byte popped = START, pushed = START, asked = START;
	byte wish;

	do
	:: memory[AVAIL] != popped ->
		popped = NEXT(popped)
	:: popped != pushed ->
		if
		:: pushed = NEXT(pushed)
		:: pushed = popped
		fi;
		device_stores ! USED, pushed;
		publisher_barrier(1, device_stores);
		wish = memory[INTR];
		if
		:: WANTED(wish, pushed, asked) ->
			atomic { empty(device_stores) -> interrupt = true }
		:: else
		fi;
		atomic { asked = pushed; wish = 0 }
	:: popped == pushed && memory[AVAIL] == popped ->
		device_stores ! BELL, WISH_ON(popped);
		sleeper_barrier(0, device_stores);
		if
		:: LOOKS(0) && memory[AVAIL] != popped
		:: !LOOKS(0) || memory[AVAIL] == popped ->
end_asleep:
			atomic { doorbell -> doorbell = false }
		fi;
		if
		:: device_stores ! BELL, WISH_OFF(popped)
		:: true
		fi
	od
}
