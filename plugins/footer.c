/*
 *  footer.c - a line below every text message that goes out.
 *
 *      cc -shared -fPIC -I include -o 30-footer.so plugins/footer.c -lfastjson
 *
 *  The MIME of an outgoing message is in its JSON; what MQ_setMime sets is sent in its place.
 */
#include <mailerq.h>
#include <libfastjson/json.h>
#include <stdlib.h>
#include <string.h>

static const char footer[] = "\r\n-- \r\nSent with mqlite\r\n";

int mq_version(void) { return MQ_API_VERSION; }

bool mq_smtp_out_data(MQ_Context *context, MQ_Connection *connection, MQ_Message *message)
{
    struct fjson_object *json = MQ_json(message), *mime;
    (void)context, (void)connection;
    if (!json || !fjson_object_object_get_ex(json, "mime", &mime)) return false;

    const char *text = fjson_object_get_string(mime);
    size_t size = fjson_object_get_string_len(mime);
    if (strstr(text, "multipart/")) return false;

    char *longer = malloc(size + sizeof footer);
    if (!longer) return false;
    memcpy(longer, text, size);
    memcpy(longer + size, footer, sizeof footer);
    MQ_setMime(message, longer, size + sizeof footer - 1);
    free(longer);
    return false;
}
