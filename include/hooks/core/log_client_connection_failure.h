/*
 *  Called when an outgoing connection to an address has not come about; `err` is CONN_ERROR(...) of connection.h.
 */
#ifndef HOOKS_CORE_LOG_CLIENT_CONNECTION_FAILURE_H
#define HOOKS_CORE_LOG_CLIENT_CONNECTION_FAILURE_H

#include <sys/socket.h>
#include "connection.h"
#include "dns_ds.h"
#include "module-hooks.h"

EC_DECLARE_VOID_HOOK(core, log_client_connection_failure,
    (void *, struct sockaddr *, int, domain_record *, int, struct timeval *),
    (struct sockaddr *addr, int err, domain_record *dr, int binding_slot, struct timeval *now),
    (EC_HOOK_CLOSURE, addr, err, dr, binding_slot, now))

#endif
