/* SPDX-License-Identifier: Apache-2.0
 *
 * What the kernel program and the agent share. bcc compiles this file, ring.c, smb.c and the
 * probes' as one text, in this order.
 *
 * AOD_RING_PAGES: size of the ring, a power of two.
 */
#include "smb.h"

BPF_RINGBUF_OUTPUT(events, AOD_RING_PAGES);
BPF_F_TABLE("array", u32, struct smb_inflight, inflight, AOD_INFLIGHT_SLOTS, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct smb_settings, settings, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct smb_histogram, histograms, AOD_COMMANDS, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct smb_counters, counters, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct smb_activity, activity, AOD_TICKS, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct smb_connection, connections, AOD_CONNECTIONS, BPF_F_MMAPABLE);

/* Never used: lets the loader see how the compiler laid the record out. */
BPF_ARRAY(event_layout, struct smb_event, 1);

static __always_inline struct smb_counters *all_counters(void)
{
	u32 first = 0;

	return counters.lookup(&first);
}

static __always_inline struct smb_settings *all_settings(void)
{
	u32 first = 0;

	return settings.lookup(&first);
}
