/* SPDX-License-Identifier: Apache-2.0
 *
 * The core of the kernel program: what happens when an SMB2 command starts and ends. The probes
 * that call it stand in files of their own, so that tests can drive the same code on a machine
 * without cifs.
 *
 * AOD_COMPOUND: defined when a probe calls compound_started().
 */
#define STATUS_MORE_PROCESSING_REQUIRED 0xC0000016
#define STATUS_SEVERITY_ERROR 3
#define SMB2_SESSION_SETUP 1
#define SMB2_TREE_CONNECT 3
#define SMB2_ECHO 13
#define MOST_COMPOUND_MEMBERS 16
#define COMPOUND_SLOTS 1024
#define SESSION_MIXER 0x9E3779B97F4A7C15ULL /* odd: 2^64 divided by the golden ratio */

#ifdef AOD_COMPOUND
/* Direct-mapped by thread: cheaper than a hash map; a thread pushed out only loses its mark. */
struct compound {
	u64 thread;
	u32 members_left; /* that have not entered yet */
	u32 reserved;
};
BPF_ARRAY(compounds, struct compound, COMPOUND_SLOTS);

static __always_inline struct compound *compound_of(u64 thread)
{
	u32 index = thread & (COMPOUND_SLOTS - 1);

	return compounds.lookup(&index);
}

static __always_inline void compound_started(u32 members)
{
	u64 thread = bpf_get_current_pid_tgid();
	struct compound *compound = compound_of(thread);

	if (!compound)
		return;
	compound->thread = thread;
	compound->members_left = members > 1 && members <= MOST_COMPOUND_MEMBERS ? members : 0;
}

static __always_inline u8 is_compound_member(void)
{
	u64 thread = bpf_get_current_pid_tgid();
	struct compound *compound = compound_of(thread);

	if (!compound || compound->thread != thread || !compound->members_left)
		return 0;
	compound->members_left--;
	return 1;
}
#else
static __always_inline u8 is_compound_member(void)
{
	return 0;
}
#endif

/* Commands of one session take neighbouring slots, so they meet only a table's length apart. */
static __always_inline struct smb_inflight *slot_of(u64 session_id, u64 mid)
{
	u32 index = (mid + (session_id * SESSION_MIXER >> 48)) & (AOD_INFLIGHT_SLOTS - 1);

	return inflight.lookup(&index);
}

static __always_inline bool holds(struct smb_inflight *slot, u64 session_id, u64 mid, u16 command)
{
	return slot && slot->start_ns && slot->mid == mid && slot->session_id == session_id &&
	       slot->smbcommand == command;
}

/* The slot of an unanswered command, or NULL: never seen, answered before, or pushed out. */
static __always_inline struct smb_inflight *unanswered(u64 session_id, u64 mid, u16 command)
{
	struct smb_inflight *slot = slot_of(session_id, mid);

	if (holds(slot, session_id, mid, command))
		return slot;
	/* The first leg of a session's set-up is sent before the session has its number. */
	if (command != SMB2_SESSION_SETUP)
		return NULL;
	slot = slot_of(0, mid);
	return holds(slot, 0, mid, command) ? slot : NULL;
}

/* An index the verifier believes: the mask stays, since the compiler may not know the value. */
static __always_inline u32 within(u32 index, u32 size)
{
	asm volatile("" : "+r"(index));
	return index & (size - 1);
}

static __always_inline void count_latency(u32 row, u64 latency_ns)
{
	struct smb_histogram *histogram = histograms.lookup(&row);
	u32 bucket = latency_ns ? bpf_log2l(latency_ns) : 0;

	if (histogram)
		__sync_fetch_and_add(&histogram->bucket[within(bucket, AOD_BUCKETS)], 1);
}

/* While a tick begins, CPUs may clear each other's first few counts. */
static __always_inline void count_activity(u32 row, u64 now_ns)
{
	u64 tick = now_ns >> AOD_TICK_SHIFT;
	u32 index = tick & (AOD_TICKS - 1);
	struct smb_activity *slot = activity.lookup(&index);

	if (!slot)
		return;
	if (slot->tick != tick) {
		__builtin_memset(slot->commands, 0, sizeof(slot->commands));
		barrier(); /* whoever sees the tick sees its own counts */
		slot->tick = tick;
	}
	__sync_fetch_and_add(&slot->commands[within(row, AOD_COMMANDS)], 1);
}

/* AOD_TOOL_* bits: who wants to know about this command. */
static __always_inline u8 interested_tools(u32 row, u64 latency_ns, s32 retval)
{
	u32 error = retval < 0 ? -retval : 0;
	struct smb_settings *wanted = all_settings();
	u64 slow_ns;
	u8 tools = 0;

	if (!wanted)
		return 0;
	slow_ns = wanted->slow_ns[within(row, AOD_COMMANDS)];
	if (slow_ns && latency_ns >= slow_ns)
		tools |= AOD_TOOL_SMBSLOWER;
	if (error >= AOD_ERRNOS)
		error = AOD_ERRNOS - 1;
	if (error && wanted->error_tracked[within(error, AOD_ERRNOS)])
		tools |= AOD_TOOL_SMBIOSNOOP;
	return tools;
}

/* An NTSTATUS may also be a warning ("there is more") or ask for the next leg of a set-up. */
static __always_inline s32 failure_of(u32 status, s32 retval)
{
	bool failed = status >> 30 == STATUS_SEVERITY_ERROR &&
		      status != STATUS_MORE_PROCESSING_REQUIRED;

	return failed ? retval : 0;
}

/* Loads do not pass it, nor do stores: x86's smp_mb(), a locked instruction on the stack. */
static __always_inline void full_barrier(void)
{
	u64 unused = 0;

	__sync_fetch_and_add(&unused, 1);
}

static __always_inline void command_entered(u64 session_id, u32 tree_id, u64 mid, u16 command)
{
	struct smb_inflight *slot = slot_of(session_id, mid);
	struct smb_counters *count = all_counters();
	struct smb_settings *wanted = all_settings();
	u64 process_and_thread = bpf_get_current_pid_tgid();

	/* The kernel reports no end of an ECHO: it would look unanswered for ever. */
	if (!slot || !count || !wanted || command == SMB2_ECHO)
		return;
	if (slot->start_ns) {
		__sync_fetch_and_add(&count->collisions, 1);
		slot->start_ns = 0;
		barrier();
	}
	slot->session_id = session_id;
	slot->mid = mid;
	slot->pid = process_and_thread >> 32;
	slot->thread_id = process_and_thread;
	slot->tree_id = tree_id;
	slot->smbcommand = command;
	slot->is_compounded = is_compound_member();
	/* Kernel 6.1 writes no further than the name's end: letters of the last owner would stay. */
	__builtin_memset(slot->task, 0, sizeof(slot->task));
	bpf_get_current_comm(&slot->task, sizeof(slot->task));
	barrier(); /* whoever sees a start sees the whole slot */
	slot->start_ns = bpf_ktime_get_ns();
	/*
	 * First the slot, then a look at the bell; the agent first arms the bell, then looks at the
	 * slots. So one of the two sees the other, and no command is missed.
	 */
	full_barrier();
	if (wanted->bell)
		ring_the_bell(wanted);
}

/*
 * The members of a compound behind a failed one end without a word: the kernel does not even look
 * at their replies. Left alone they would look unanswered until another command takes the slot.
 */
static __always_inline void drop_compound_after(struct smb_inflight *failed)
{
	for (u64 next = 1; next < MOST_COMPOUND_MEMBERS; next++) {
		struct smb_inflight *member = slot_of(failed->session_id, failed->mid + next);

		if (!member || !member->start_ns || !member->is_compounded ||
		    member->mid != failed->mid + next ||
		    member->session_id != failed->session_id ||
		    member->thread_id != failed->thread_id)
			return;
		member->start_ns = 0;
	}
}

/* retval: 0 or a negative errno. A second call for the same command only counts as unmatched. */
static __always_inline void command_finished(u64 session_id, u32 tree_id, u64 mid, u16 command,
					     s32 retval)
{
	u64 now_ns = bpf_ktime_get_ns();
	struct smb_inflight *slot = unanswered(session_id, mid, command);
	struct smb_event event = {};
	u32 row = command < AOD_COMMANDS ? command : AOD_COMMANDS - 1;

	if (!slot) {
		struct smb_counters *count = all_counters();

		if (count)
			__sync_fetch_and_add(&count->unmatched, 1);
		return;
	}
	event.metric_latency_ns = now_ns - slot->start_ns;
	slot->start_ns = 0;
	if (retval < 0 && slot->is_compounded)
		drop_compound_after(slot);
	count_latency(row, event.metric_latency_ns);
	count_activity(row, now_ns);
	event.tool = interested_tools(row, event.metric_latency_ns, retval);
	if (!event.tool)
		return;
	event.cmd_end_time_ns = now_ns;
	event.session_id = session_id;
	event.mid = mid;
	event.pid = slot->pid;
	/* The reply to an asynchronous command carries no tree, that to TREE_CONNECT the new one. */
	event.tree_id = command == SMB2_TREE_CONNECT ? tree_id : slot->tree_id;
	event.retval = retval;
	event.smbcommand = command;
	event.is_compounded = slot->is_compounded;
	__builtin_memcpy(event.task, slot->task, sizeof(event.task));
	report(&event);
}
