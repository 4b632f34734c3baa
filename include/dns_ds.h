/*
 *  dns_ds.h - what the hooks of hooks/core/ are told of a domain. The names are Momentum's; what it does not document,
 *  and what says nothing about mqlite, is not here.
 *
 *  A domain is where mail is routed to: the domain of the recipients, or the server, where a setting or the message
 *  names one. Counts are those of this process since its first hook was registered. A record is good during the call
 *  of a hook; it is not to be changed.
 */
#ifndef DNS_DS_H
#define DNS_DS_H

#include <stdint.h>
#include <sys/time.h>

typedef struct _mx_record {
    char    *host;
    int      preference;
} mx_record;

typedef struct _domain_record {
    char            *domain;            /* these two come first */
    uint64_t         expiry;            /* seconds since 1970 until which mxlist holds; 0 when not known */
    struct timeval   last_delivery;     /* 0 when there was none */
    mx_record      **mxlist;            /* the mail exchangers, by preference; NULL without any */
    uint32_t         deliveries;        /* messages that were accepted */
    uint32_t         attempts;          /* messages that were tried: the sum of the three others */
    uint32_t         transients;        /* messages that may be tried again */
    uint32_t         failures;          /* messages that were given up */
    int              mxcnt;             /* the length of mxlist; 0 for a domain without MX records */
    uint8_t          dns_failures;      /* lookups that failed since the last that did not; at most 255 */
} domain_record;

#endif
