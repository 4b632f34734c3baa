/*
 *  attempts.c - a line in the log for each attempt to open an outgoing connection, with what is known of the domain.
 *
 *      cc -shared -fPIC -I include -o 50-attempts.so plugins/attempts.c
 *
 *  Uses a hook of Momentum; what a Momentum module registers in conf_setup, a plugin registers in mq_initialize.
 */
#include <mailerq.h>
#include <hooks/core/post_initiate_connection_smtp.h>
#include <stdio.h>

static unsigned long attempts, connected;

static void on_attempt(void *closure, domain_record *dr, int binding_slot, struct timeval *now, int conn_fd)
{
    char line[512], outcome[32] = "connected";
    (void)closure, (void)now;
    attempts++;
    if (conn_fd >= 0) connected++;
    else snprintf(outcome, sizeof outcome, "error 0x%04x", conn_fd & ~CONN_ERROR(0));
    snprintf(line, sizeof line, "attempts: %lu, connected %lu; %s from address %d: %s; "
             "messages: %u of %u delivered, %u deferred, %u given up", attempts, connected, dr->domain, binding_slot,
             outcome, dr->deliveries, dr->attempts, dr->transients, dr->failures);
    MQ_log(MQ_INFO, line);
}

int mq_version(void) { return MQ_API_VERSION; }

void mq_initialize(void)
{
    register_core_post_initiate_connection_smtp_hook_last(on_attempt, NULL);
}
