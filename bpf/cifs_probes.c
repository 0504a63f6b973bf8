/* SPDX-License-Identifier: Apache-2.0
 *
 * The kernel's SMB client calls in: cifs:smb3_cmd_enter, smb3_cmd_done and smb3_cmd_err. bcc makes
 * the argument structs from the running kernel's format files.
 */
int on_smb3_cmd_enter(struct tracepoint__cifs__smb3_cmd_enter *args)
{
	command_entered(args->sesid, args->tid, args->mid, args->cmd);
	return 0;
}

int on_smb3_cmd_done(struct tracepoint__cifs__smb3_cmd_done *args)
{
	command_finished(args->sesid, args->tid, args->mid, args->cmd, 0);
	return 0;
}

int on_smb3_cmd_err(struct tracepoint__cifs__smb3_cmd_err *args)
{
	command_finished(args->sesid, args->tid, args->mid, args->cmd,
			 failure_of(args->status, args->rc));
	return 0;
}
