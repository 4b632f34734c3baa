/*
 *  Called after every attempt to open an outgoing connection, also when it failed at once.
 *
 *      dr              the domain that mail is to be sent to
 *      binding_slot    the index of the local address: first those of smtp-default-ips in their order, then others as
 *                      they come up; an address that the kernel chooses counts as one
 *      now             the time
 *      conn_fd         the connected socket, before a word of SMTP, or CONN_ERROR(...) of connection.h
 *
 *  Once for each address that a connection is tried to, and once when there was none to try.
 */
#ifndef HOOKS_CORE_POST_INITIATE_CONNECTION_SMTP_H
#define HOOKS_CORE_POST_INITIATE_CONNECTION_SMTP_H

#include "connection.h"
#include "dns_ds.h"
#include "module-hooks.h"

EC_DECLARE_VOID_HOOK(core, post_initiate_connection_smtp,
    (void *, domain_record *, int, struct timeval *, int),
    (domain_record *dr, int binding_slot, struct timeval *now, int conn_fd),
    (EC_HOOK_CLOSURE, dr, binding_slot, now, conn_fd))

#endif
