/* SPDX-License-Identifier: Apache-2.0
 *
 * Test probes: a prctl(2) with an option no kernel knows stands for an SMB command's start or end.
 * arg2: kind << 32 | errno << 16 | command, arg3: session, arg4: mid, arg5: NTSTATUS << 32 |
 * tree. A lost connection has its number in arg3 and its current mid in arg4. TEST_OPTION differs
 * by test process, since the tracepoint sees every process.
 *
 * A burst are `command` answers at once, at the kernel's own speed, to commands that nobody saw
 * start: arg4 is the latency of the first, the next ones take a nanosecond more each, and one of
 * FAILED_SHARE fails. They are in the ring alone, in no histogram.
 */
#define KIND_ENTER 1
#define KIND_FINISH 2
#define KIND_FAIL 3
#define KIND_COMPOUND 4
#define KIND_RECONNECT 5
#define KIND_BURST 6
#define MOST_BURST 250
#define FAILED_SHARE 64
#define SMB2_READ 8
#define TEST_HOST "files.department.example"

static __always_inline void test_connection_lost(u64 conn_id, u64 mid)
{
	struct smb_connection lost = { .conn_id = conn_id };

	__builtin_memcpy(lost.hostname, TEST_HOST, sizeof(TEST_HOST));
	connection_lost(&lost, mid);
}

static __always_inline void test_burst(u32 count, u64 session_id, u64 latency_ns, s32 retval)
{
	struct smb_event event = { .session_id = session_id, .task = "burst" };
	u8 slow = interested_tools(SMB2_READ, latency_ns, 0);
	u8 slow_and_failed = interested_tools(SMB2_READ, latency_ns, retval);

	for (u32 i = 0; i < MOST_BURST; i++) {
		if (i >= count)
			break;
		event.mid = i;
		event.smbcommand = SMB2_READ + (i & 1);
		event.retval = i % FAILED_SHARE ? 0 : retval;
		event.metric_latency_ns = latency_ns + i;
		event.cmd_end_time_ns = bpf_ktime_get_ns();
		event.tool = i % FAILED_SHARE ? slow : slow_and_failed;
		report(&event);
	}
}

int on_prctl(struct tracepoint__syscalls__sys_enter_prctl *args)
{
	u32 kind = args->arg2 >> 32;
	s32 retval = -(s32)(u16)(args->arg2 >> 16);
	u16 command = args->arg2;
	u32 tree_id = args->arg5;
	u32 status = args->arg5 >> 32;

	if ((u32)args->option != TEST_OPTION)
		return 0;
	if (kind == KIND_ENTER)
		command_entered(args->arg3, tree_id, args->arg4, command);
	else if (kind == KIND_COMPOUND)
		compound_started(command);
	else if (kind == KIND_RECONNECT)
		test_connection_lost(args->arg3, args->arg4);
	else if (kind == KIND_BURST)
		test_burst(command, args->arg3, args->arg4, retval);
	else
		command_finished(args->arg3, tree_id, args->arg4, command,
				 kind == KIND_FAIL ? failure_of(status, retval) : retval);
	return 0;
}
