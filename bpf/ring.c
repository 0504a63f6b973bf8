/* SPDX-License-Identifier: Apache-2.0
 *
 * What goes into the ring: finished commands, the bell, lost connections.
 */
static __always_inline void submit(struct smb_event *event)
{
	struct smb_counters *count = all_counters();

	events.ringbuf_submit(event, 0);
	if (count)
		__sync_fetch_and_add(&count->events, 1);
}

static __always_inline void report(struct smb_event *finished)
{
	struct smb_event *event = events.ringbuf_reserve(sizeof(*event));
	struct smb_counters *count = all_counters();

	if (event) {
		__builtin_memcpy(event, finished, sizeof(*event));
		submit(event);
	} else if (count) {
		__sync_fetch_and_add(&count->ring_full, 1);
	}
}

/*
 * Wakes the agent that armed the bell. With a full ring the bell stays armed and nothing is lost:
 * the next command tries again. Two CPUs at once may ring twice; after either's clearing of the
 * bell there is a record, so that the agent never waits for a bell that is not armed.
 */
static __always_inline void ring_the_bell(struct smb_settings *wanted)
{
	struct smb_event *event = events.ringbuf_reserve(sizeof(*event));

	if (!event)
		return;
	__builtin_memset(event, 0, sizeof(*event));
	event->cmd_end_time_ns = bpf_ktime_get_ns();
	event->smbcommand = AOD_NO_COMMAND;
	event->tool = AOD_TOOL_BELL;
	wanted->bell = 0;
	submit(event);
}

/* hostname: NUL-terminated, zero to its end. */
static __always_inline void connection_lost(struct smb_connection *lost, u64 mid)
{
	u32 index = lost->conn_id & (AOD_CONNECTIONS - 1);
	struct smb_connection *connection = connections.lookup(&index);
	struct smb_settings *wanted = all_settings();
	struct smb_event event = {};

	if (connection)
		__builtin_memcpy(connection, lost, sizeof(*connection));
	if (!wanted || !wanted->reconnects)
		return;
	event.cmd_end_time_ns = bpf_ktime_get_ns();
	event.session_id = lost->conn_id;
	event.mid = mid;
	event.smbcommand = AOD_NO_COMMAND;
	event.tool = AOD_TOOL_RECONNECT;
	__builtin_memcpy(event.task, lost->hostname, sizeof(event.task));
	report(&event);
}
