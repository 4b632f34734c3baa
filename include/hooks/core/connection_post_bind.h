/*
 *  Called when an outgoing socket has its local address, before it connects. Another result than 0 forbids the
 *  connection to this address (CONN_ERROR_PROHIBITED_IP); the next hook is then not asked.
 *
 *      fd              the socket: the place for setsockopt()
 *      addr, addr_len  where it is about to connect to
 */
#ifndef HOOKS_CORE_CONNECTION_POST_BIND_H
#define HOOKS_CORE_CONNECTION_POST_BIND_H

#include <sys/socket.h>
#include "dns_ds.h"
#include "module-hooks.h"

EC_DECLARE_HOOK(core, int, connection_post_bind,
    (void *, domain_record *, int, int, struct sockaddr *, int),
    (domain_record *dr, int binding_slot, int fd, struct sockaddr *addr, int addr_len),
    (EC_HOOK_CLOSURE, dr, binding_slot, fd, addr, addr_len),
    if (EC_HOOK_RETVAL != 0) EC_HOOK_RETURN(EC_HOOK_RETVAL))

#endif
