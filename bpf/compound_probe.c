/* SPDX-License-Identifier: Apache-2.0
 *
 * The tracepoints do not say which commands travel in one compound request; the function that
 * sends it knows. Only for kernels with kprobes.
 */
#include <uapi/linux/ptrace.h>

/* compound_send_recv(xid, session, server, flags, number of requests, ...) */
int on_compound_send_recv(struct pt_regs *ctx)
{
	compound_started((u32)PT_REGS_PARM5(ctx));
	return 0;
}
