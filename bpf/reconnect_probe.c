/* SPDX-License-Identifier: Apache-2.0
 *
 * The SMB client lost a connection: cifs:smb3_reconnect. Only for kernels whose event names the
 * connection and its server.
 */
int on_smb3_reconnect(struct tracepoint__cifs__smb3_reconnect *args)
{
	struct smb_connection lost = {};

	lost.conn_id = args->conn_id;
	TP_DATA_LOC_READ_STR(&lost.hostname, hostname, sizeof(lost.hostname));
	connection_lost(&lost, args->currmid);
	return 0;
}
