/* The log: a line is put together on the stack and written with one call. */
#include "service/core/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "service/core/clock.h"
#include "service/core/metric.h"
#include "service/core/number.h"
#include "service/core/utf8.h"

enum {
    WORDS_BYTES = 2048,
    VALUE_BYTES = 1024, /* of a value, escaped */
    END_BYTES = 16,     /* kept for `,"cut":true}` and the end of the line */
};

static const char *const level_names[] = {"debug", "info", "warning", "error"};
static atomic_int threshold = LOG_INFO;
static atomic_int format = LOG_TEXT;

/* --- where lines go --- */

enum target {
    TARGET_PLAIN,  /* does not block for long, or says EAGAIN */
    TARGET_SHARED, /* may block, and is not ours to change: asked before each write */
    TARGET_SOCKET
};

static atomic_int descriptor = STDERR_FILENO;
static atomic_int target = TARGET_PLAIN;
static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;
static char file_path[PATH_MAX]; /* "": none; under `opening` */

static atomic_bool stuck;        /* the last line found no room */
static atomic_bool torn;         /* the last line was written in part, without its end */
static _Atomic uint64_t missing; /* lines dropped since the last one that was written */

static ssize_t write_some(const char *data, size_t size)
{
    int fd = atomic_load(&descriptor);
    int kind = atomic_load(&target);
    struct pollfd ready = {.fd = fd, .events = POLLOUT};

    if (kind == TARGET_SOCKET)
        return send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (kind == TARGET_SHARED && poll(&ready, 1, 0) == 0) {
        errno = EAGAIN;
        return -1;
    }
    return write(fd, data, size);
}

/* False when it could not be written, or not in time. */
static bool write_whole(const char *data, size_t size)
{
    bool waited = atomic_load(&stuck);
    size_t whole = size;

    while (size > 0) {
        ssize_t written = write_some(data, size);
        if (written > 0) {
            data += written;
            size -= (size_t)written;
        } else if (written < 0 && errno == EAGAIN && !waited) {
            struct pollfd ready = {.fd = atomic_load(&descriptor), .events = POLLOUT};
            waited = true;
            poll(&ready, 1, LOG_WAIT_MS);
        } else if (written == 0 || errno != EINTR) {
            if (size < whole)
                atomic_store(&torn, true);
            return false;
        }
    }
    return true;
}

static void write_line(enum log_level level, const char *data, size_t size)
{
    if (atomic_load_explicit(&torn, memory_order_relaxed) && write_whole("\n", 1))
        atomic_store(&torn, false);
    if (atomic_load_explicit(&torn, memory_order_relaxed) || !write_whole(data, size)) {
        atomic_store(&stuck, true);
        atomic_fetch_add(&missing, 1);
        metric_count(COUNTER_LOG_DROPPED, 0, 1);
        return;
    }
    metric_count(COUNTER_LOG_LINES, level, 1);
    if (atomic_load_explicit(&stuck, memory_order_relaxed) && atomic_exchange(&stuck, false))
        log_warning("%" PRIu64 " lines of log are missing before this one: nobody took them",
                    atomic_exchange(&missing, 0));
}

/* --- a line --- */

struct line {
    bool json;
    bool cut; /* something was left out */
    size_t used;
    char data[LOG_LINE_BYTES];
};

static size_t room(const struct line *line)
{
    return LOG_LINE_BYTES - END_BYTES - line->used;
}

/* Of what fits for certain. */
static void put(struct line *line, const char *text, size_t size)
{
    memcpy(line->data + line->used, text, size);
    line->used += size;
}

static void put_text(struct line *line, const char *text)
{
    put(line, text, strlen(text));
}

static uint32_t code_point(const char *text, size_t length)
{
    static const unsigned char masks[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    uint32_t code = (unsigned char)text[0] & masks[length];

    for (size_t i = 1; i < length; i++)
        code = code << 6 | ((unsigned char)text[i] & 0x3F);
    return code;
}

/* Characters that move the cursor, end the line, or turn the direction of what follows. */
static bool is_unruly(uint32_t code)
{
    return code < 0x20 || (code >= 0x7F && code <= 0x9F) || code == 0x061C || code == 0x200E ||
           code == 0x200F || (code >= 0x2028 && code <= 0x202E) ||
           (code >= 0x2066 && code <= 0x2069);
}

enum { ESCAPED_BYTES = 8 };

/* The character at text, of which `size` bytes are there, as it is to be written; returns how many
 * bytes of text it takes. */
static size_t escape(bool json, const char *text, size_t size, char out[ESCAPED_BYTES])
{
    size_t length = utf8_length(text, size);
    uint32_t code = length > 0 ? code_point(text, length) : 0;

    if (length == 0)
        snprintf(out, ESCAPED_BYTES, json ? "\\ufffd" : "\\x%02x", (unsigned)(unsigned char)*text);
    else if (is_unruly(code))
        snprintf(out, ESCAPED_BYTES, json || code > 0x7F ? "\\u%04x" : "\\x%02x", (unsigned)code);
    else if (code == '"' || code == '\\')
        snprintf(out, ESCAPED_BYTES, "\\%c", (char)code);
    else
        snprintf(out, ESCAPED_BYTES, "%.*s", (int)length, text);
    return length > 0 ? length : 1;
}

/* How many characters at text, at most so many, are written as they are. */
static size_t plain_size(const char *text, size_t max)
{
    size_t size = 0;

    while (size < max && text[size] >= ' ' && text[size] <= '~' && text[size] != '"' &&
           text[size] != '\\')
        size++;
    return size;
}

/* At most `max` bytes of it, escaped, if the line has so many; `end` follows it for certain. */
static void put_escaped(struct line *line, const char *text, size_t max, const char *end)
{
    static const char dots[] = "...";
    size_t rest = strlen(text), end_size = strlen(end);
    size_t limit = line->used + (room(line) < max ? room(line) : max) - sizeof dots - end_size;
    char out[ESCAPED_BYTES];

    while (rest > 0) {
        size_t taken = plain_size(text, limit - line->used);
        put(line, text, taken);
        text += taken;
        rest -= taken;
        if (rest == 0)
            break;
        taken = escape(line->json, text, rest, out);
        size_t size = strlen(out);
        if (line->used + size > limit) {
            line->cut = true;
            put(line, dots, sizeof dots - 1);
            break;
        }
        put(line, out, size);
        text += taken;
        rest -= taken;
    }
    put(line, end, end_size);
}

/* Whether a value can stand without quotes. */
static bool is_plain(const char *text)
{
    if (*text == '\0')
        return false;
    for (; *text != '\0'; text++)
        if (*text <= ' ' || *text > '~' || *text == '"' || *text == '\\' || *text == '=')
            return false;
    return true;
}

static void put_field(struct line *line, const struct log_field *field)
{
    size_t name_size = strlen(field->name);
    char number[24];

    if (room(line) < name_size + sizeof number + 16) {
        line->cut = true;
        return;
    }
    put(line, line->json ? ",\"" : " ", line->json ? 2 : 1);
    put(line, field->name, name_size);
    put(line, line->json ? "\":" : "=", line->json ? 2 : 1);
    if (field->text == NULL) {
        put(line, number, number_digits(number, field->number));
    } else if (!line->json && is_plain(field->text)) {
        put_escaped(line, field->text, VALUE_BYTES, "");
    } else {
        put(line, "\"", 1);
        put_escaped(line, field->text, VALUE_BYTES, "\"");
    }
}

static void put_start(struct line *line, enum log_level level, const char *words)
{
    char time[32];

    line->json = atomic_load_explicit(&format, memory_order_relaxed) == LOG_JSON;
    line->cut = false;
    line->used = 0;
    clock_format(time, clock_unix_us());
    put_text(line, line->json ? "{\"time\":\"" : "");
    put_text(line, time);
    put_text(line, line->json ? "\",\"level\":\"" : " ");
    put_text(line, level_names[level]);
    put_text(line, line->json ? "\",\"message\":\"" : " ");
    put_escaped(line, words, WORDS_BYTES, line->json ? "\"" : "");
}

void log_fields(enum log_level level, const char *words, const struct log_field *fields,
                size_t count)
{
    struct line line;

    if (!log_wants(level))
        return;
    put_start(&line, level, words);
    for (size_t i = 0; i < count; i++)
        put_field(&line, &fields[i]);
    if (line.json && line.cut)
        line.used += (size_t)snprintf(line.data + line.used, END_BYTES, ",\"cut\":true");
    if (line.json)
        line.data[line.used++] = '}';
    line.data[line.used++] = '\n';
    write_line(level, line.data, line.used);
}

void log_write(enum log_level level, const char *words_format, ...)
{
    char words[WORDS_BYTES];
    va_list arguments;

    if (!log_wants(level))
        return;
    va_start(arguments, words_format);
    vsnprintf(words, sizeof words, words_format, arguments);
    va_end(arguments);
    log_fields(level, words, NULL, 0);
}

/* --- settings --- */

void log_set_level(enum log_level level)
{
    atomic_store(&threshold, (int)level);
}

void log_set_format(enum log_format new_format)
{
    atomic_store(&format, (int)new_format);
}

bool log_wants(enum log_level level)
{
    return (int)level >= atomic_load_explicit(&threshold, memory_order_relaxed) && level < LOG_OFF;
}

/* A pipe or a terminal may block for ever, and the flag against it belongs to all who share it: an
 * open file of our own has its own flags. Who may not open it (it is another user's) asks before
 * each write. A file as stderr has its place to write at, so it is left alone. */
static void open_stderr(void)
{
    struct stat about;

    file_path[0] = '\0';
    atomic_store(&descriptor, STDERR_FILENO);
    atomic_store(&target, TARGET_PLAIN);
    if (fstat(STDERR_FILENO, &about) != 0)
        return;
    if (S_ISSOCK(about.st_mode)) {
        atomic_store(&target, TARGET_SOCKET);
    } else if (S_ISFIFO(about.st_mode) || S_ISCHR(about.st_mode)) {
        int own = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (own >= 0)
            atomic_store(&descriptor, own);
        else
            atomic_store(&target, TARGET_SHARED);
    }
}

static int open_file(const char *path)
{
    /* O_NONBLOCK: for who names a FIFO. */
    return open(path, O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0640);
}

enum status log_open(const char *path, struct fault *fault)
{
    enum status status = STATUS_OK;
    int fd = -1;

    pthread_mutex_lock(&opening);
    if (*path == '\0') {
        open_stderr();
    } else if (strlen(path) >= sizeof file_path) {
        status = fault_set(fault, STATUS_INTERNAL, "", "the log's file has too long a name");
    } else if ((fd = open_file(path)) < 0) {
        status = fault_set(fault, STATUS_INTERNAL, "", "cannot log to %.300s: %s", path,
                           strerror(errno));
    } else {
        memcpy(file_path, path, strlen(path) + 1);
        atomic_store(&descriptor, fd);
        atomic_store(&target, TARGET_PLAIN);
    }
    pthread_mutex_unlock(&opening);
    return status;
}

void log_reopen(void)
{
    int error = 0;

    pthread_mutex_lock(&opening);
    if (file_path[0] != '\0') {
        int fd = open_file(file_path);
        /* Under the number of the old one, at once: a thread that writes now writes to either. */
        if (fd < 0 || dup3(fd, atomic_load(&descriptor), O_CLOEXEC) < 0)
            error = errno;
        if (fd >= 0)
            close(fd);
    }
    pthread_mutex_unlock(&opening);
    if (error != 0)
        log_error("the log's file cannot be opened again, the old one stays: %s", strerror(error));
}
