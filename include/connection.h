/*
 *  connection.h - why there is no connection. The names are Momentum's; the numbers, which it does not publish, are
 *  mqlite's own.
 *
 *  A hook gets a descriptor, or CONN_ERROR(bits), which is negative:
 *
 *      if (conn_fd < 0 && conn_fd & (CONN_ERROR_CONNECT | CONN_ERROR_CONNECT_TIMEOUT)) ...
 */
#ifndef CONNECTION_H
#define CONNECTION_H

#include <limits.h>

#define CONN_ERROR(bits)                (INT_MIN | (bits))

#define CONN_ERROR_MX_LOOKUP_FAILED     0x0004  /* the domain's mail exchangers could not be found */
#define CONN_ERROR_SMTP_NULL_MX         0x0010  /* the domain takes no mail (RFC 7505) */
#define CONN_ERROR_NO_MXS_REACHABLE     0x0020  /* none of its mail exchangers has an address that can be tried */
#define CONN_ERROR_PROHIBITED_IP        0x0040  /* a connection_post_bind hook, or the host's firewall, forbids it */
#define CONN_ERROR_SOCKET               0x0100  /* no socket: descriptors or memory have run out */
#define CONN_ERROR_BIND                 0x0400  /* the local address cannot be used, or none suits the server's */
#define CONN_ERROR_CONNECT              0x0800  /* refused */
#define CONN_ERROR_CONNECT_NETWORK      0x1000  /* there is no way to it */
#define CONN_ERROR_CONNECT_TIMEOUT      0x2000  /* no answer */

/* These are there for sources that name them: mqlite waits for lookups and for its turn, and has no cause to say so. */
#define CONN_ACTION_REQUEUE1            0x0001
#define CONN_ACTION_PURGE_DOMAIN        0x0002
#define CONN_ERROR_MX_LOOKUP_PENDING    0x0008
#define CONN_ERROR_HOST_MAX_REACHED     0x0080
#define CONN_ERROR_IOCTL                0x0200

#endif
