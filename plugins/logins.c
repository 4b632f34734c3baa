/*
 *  logins.c - logins from a file: a line "login:hash" for each, the hash as crypt(3) has it (mkpasswd, openssl passwd).
 *
 *      cc -shared -fPIC -I include -o 05-logins.so plugins/logins.c -pthread -lcrypt
 *
 *  The file is /etc/mqlite/logins, or what LOGINS_FILE names. Reading may block and a hash is slow on purpose, so each
 *  login gets a thread, and the plugin is in control until that has handed it back. Functions of the host may be called
 *  from there; if the client has left meanwhile, they do nothing.
 */
#define _GNU_SOURCE
#include <mailerq.h>
#include <crypt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct check { MQ_Connection *connection; char login[256], password[256]; };

static const char *file_name(void)
{
    const char *name = getenv("LOGINS_FILE");
    return name ? name : "/etc/mqlite/logins";
}

static bool is_right(const char *login, const char *password)
{
    char line[1024];
    size_t size = strlen(login);
    bool right = false;
    FILE *file = fopen(file_name(), "r");
    if (!file) MQ_log(MQ_WARN, "logins: the file of logins cannot be read");
    while (file && fgets(line, sizeof line, file)) {
        const char *hash = line + size + 1, *made;
        struct crypt_data data = { 0 };
        line[strcspn(line, "\r\n")] = 0;
        if (strncmp(line, login, size) || line[size] != ':') continue;
        made = crypt_r(password, hash, &data);
        right = made && !strcmp(made, hash);
        break;
    }
    if (file) fclose(file);
    return right;
}

static void *run(void *data)
{
    struct check *check = data;
    if (is_right(check->login, check->password)) MQ_setAuthenticated(check->connection, true);
    MQ_continue(check->connection);
    explicit_bzero(check, sizeof *check);
    free(check);
    return NULL;
}

int mq_version(void) { return MQ_API_VERSION; }

bool mq_smtp_in_authenticate(MQ_Context *context, MQ_Connection *connection, const char *login, size_t loginsize,
                             const char *passwd, size_t passwdsize)
{
    struct check *check;
    pthread_t thread;
    (void)context;
    if (loginsize >= sizeof check->login || passwdsize >= sizeof check->password) return false;
    if (memchr(login, 0, loginsize) || memchr(login, ':', loginsize) || memchr(passwd, 0, passwdsize)) return false;
    if (!(check = calloc(1, sizeof *check))) return false;
    check->connection = connection;
    memcpy(check->login, login, loginsize);
    memcpy(check->password, passwd, passwdsize);
    if (pthread_create(&thread, NULL, run, check)) return free(check), false;
    pthread_detach(thread);
    return true;
}
