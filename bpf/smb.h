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
#define AOD_TICKS 1024           /* of activity; a power of two */
#define AOD_TICK_SHIFT 27        /* a tick is 2^27 ns: 134 ms, so all ticks are 137 s */
#define AOD_CONNECTIONS 64       /* direct-mapped, a power of two */
#define AOD_HOSTNAME_LENGTH 56

#define AOD_TOOL_SMBSLOWER 1  /* bit: slower than the command's threshold */
#define AOD_TOOL_SMBIOSNOOP 2 /* bit: failed with a tracked errno */
#define AOD_TOOL_RECONNECT 4  /* no command: a connection was lost */
#define AOD_TOOL_BELL 8       /* no command: one entered while the bell was armed */
#define AOD_NO_COMMAND 0xFFFF

/*
 * One slow or failed command. 64 bytes, so that ring header and record make 72.
 *
 * With AOD_NO_COMMAND it is a lost connection (session_id: the connection's number, mid: its
 * current one, task: the beginning of the server's name) or the bell, both with the time of it;
 * what is not named here is 0 then.
 */
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
	u32 reconnects;               /* 1: a lost connection is an event */
	u32 bell;                     /* 1: the next command rings it, which makes it 0 again */
};

struct smb_histogram {
	u64 bucket[AOD_BUCKETS];
};

/* Commands answered in one tick of CLOCK_MONOTONIC, however fast; slot: tick % AOD_TICKS. */
struct smb_activity {
	u64 tick; /* end time >> AOD_TICK_SHIFT; a slot of another tick says nothing about this one */
	u32 commands[AOD_COMMANDS];
};

/* The server of a connection that was lost at least once; slot: conn_id % AOD_CONNECTIONS. */
struct smb_connection {
	u64 conn_id; /* as in DebugData; 0 marks an empty slot */
	char hostname[AOD_HOSTNAME_LENGTH]; /* cut to fit, ends with a NUL */
};

struct smb_counters {
	u64 events;     /* records put into the ring */
	u64 ring_full;  /* records lost because the ring was full */
	u64 unmatched;  /* replies without a command in the table */
	u64 collisions; /* commands that took the slot of an unanswered one */
};

#endif
