/* SPDX-License-Identifier: Apache-2.0
 *
 * The wire contract between the kernel program (smb.c) and the agent (abi.py).
 * Every struct here stands once more in abi.py as a NumPy dtype; the loader reports
 * the sizes and offsets its compiler saw, and the agent refuses to start on a difference.
 */
#ifndef AOD_SMB_H
#define AOD_SMB_H

#define AOD_COMMANDS 32          /* rows by SMB2 command; 0..19 exist, the rest stay zero */
#define AOD_BUCKETS 64           /* bucket b holds latencies in [2^(b-1), 2^b) ns */
#define AOD_ERRNOS 512           /* tracked errno values; larger ones count as the last */
#define AOD_INFLIGHT_SLOTS 16384 /* direct-mapped, a power of two */

#define AOD_TOOL_SMBSLOWER 1  /* bit: slower than the command's threshold */
#define AOD_TOOL_SMBIOSNOOP 2 /* bit: failed with a tracked errno */

/* One slow or failed command. 64 bytes, so that ring header and record make 72. */
struct smb_event {
	u64 cmd_end_time_ns; /* CLOCK_MONOTONIC */
	u64 session_id;
	u64 mid;
	u64 metric_latency_ns;
	u32 pid; /* process (thread group) that issued the command */
	u32 tree_id;
	s32 retval; /* 0, or a negative errno */
	u16 smbcommand;
	u8 tool; /* AOD_TOOL_* bits */
	u8 is_compounded;
	char task[16]; /* comm of the issuing thread */
};

/* A command the server has not answered yet; start_ns == 0 marks an empty slot. */
struct smb_inflight {
	u64 start_ns; /* CLOCK_MONOTONIC */
	u64 session_id;
	u64 mid;
	u32 pid;
	u32 thread_id; /* what DebugData lists as pid */
	u32 tree_id;
	u16 smbcommand;
	u8 is_compounded;
	u8 reserved;
	char task[16];
	u64 reserved_tail;
};

/* Written by the agent, read by the program: what is worth an event. All zero: nothing is. */
struct smb_settings {
	u64 slow_ns[AOD_COMMANDS];     /* 0: never slow */
	u8 error_tracked[AOD_ERRNOS]; /* 1: a failure with this errno is an event */
};

struct smb_histogram {
	u64 bucket[AOD_BUCKETS];
};

struct smb_counters {
	u64 events;     /* records put into the ring */
	u64 ring_full;  /* records lost because the ring was full */
	u64 unmatched;  /* replies without a command in the table */
	u64 collisions; /* commands that took the slot of an unanswered one */
};

#endif
