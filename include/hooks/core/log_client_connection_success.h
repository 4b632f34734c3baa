/*
 *  Called when an outgoing connection has come about.
 */
#ifndef HOOKS_CORE_LOG_CLIENT_CONNECTION_SUCCESS_H
#define HOOKS_CORE_LOG_CLIENT_CONNECTION_SUCCESS_H

#include <sys/socket.h>
#include "dns_ds.h"
#include "module-hooks.h"

EC_DECLARE_VOID_HOOK(core, log_client_connection_success,
    (void *, struct sockaddr *, domain_record *, int, struct timeval *),
    (struct sockaddr *addr, domain_record *dr, int binding_slot, struct timeval *now),
    (EC_HOOK_CLOSURE, addr, dr, binding_slot, now))

#endif
