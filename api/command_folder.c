/* The options, the progress and the report of the commands that care for a data folder. */
#include "api/command_folder.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/commands.h"
#include "service/core/clock.h"

enum { TERMINAL_EVERY_MS = 100, LINES_EVERY_MS = 3000 };

static struct {
    uint64_t next_us; /* when to show again */
    bool terminal, begun;
} shown;

/* Takes `own` and its value out of `options` into *value; `rest` has room for all of them. False
 * when the value is missing. */
static bool take_own(char *const *options, const char *own, char **rest, const char **value)
{
    size_t count = 0, size = own != NULL ? strlen(own) : 0;

    *value = NULL;
    for (; *options != NULL; options++) {
        if (own == NULL || strncmp(*options, own, size) != 0 ||
            ((*options)[size] != '\0' && (*options)[size] != '=')) {
            rest[count++] = *options;
            continue;
        }
        *value = (*options)[size] == '=' ? *options + size + 1 : *++options;
        if (*value == NULL || (*value)[0] == '\0')
            return false;
    }
    rest[count] = NULL;
    return own == NULL || *value != NULL;
}

int folder_command_open(struct folder_command *command, char *const *options, const char *own)
{
    static const char *const flags[] = {"data", "config", "log", NULL};
    size_t count = 0;
    struct fault fault;
    char what[64];
    int code = EXIT_USAGE;

    *command = (struct folder_command){.url = NULL};
    while (options[count] != NULL)
        count++;
    char **rest = calloc(count + 1, sizeof *rest);
    if (rest == NULL) {
        fprintf(stderr, "descent: there is not enough memory\n");
        return EXIT_FAILURE;
    }
    if (!take_own(options, own, rest, &command->other)) {
        snprintf(what, sizeof what, "%s needs a folder", own);
        code = command_usage(what);
        goto done;
    }
    if (config_read_some(rest, flags, &command->config, &fault) != STATUS_OK) {
        fprintf(stderr, "descent: %s\n", fault.detail);
        goto done;
    }
    log_set_level(config_log_level(&command->config));
    command->url = config_store_url(&command->config);
    code = command->url != NULL ? EXIT_SUCCESS : EXIT_FAILURE;
    if (code != EXIT_SUCCESS) {
        config_close(&command->config);
        fprintf(stderr, "descent: there is not enough memory\n");
    }
done:
    free(rest);
    return code;
}

void folder_command_close(struct folder_command *command)
{
    free(command->url);
    config_close(&command->config);
}

int folder_command_failed(const struct fault *fault)
{
    fprintf(stderr, "descent: %s\n", fault->detail);
    return EXIT_FAILURE;
}

static void show_progress(void *context, const char *doing, uint64_t done, uint64_t total)
{
    uint64_t now = clock_monotonic_us();

    (void)context;
    if (now < shown.next_us)
        return;
    shown.next_us = now + 1000ULL * (shown.terminal ? TERMINAL_EVERY_MS : LINES_EVERY_MS);
    shown.begun = true;
    fprintf(stderr, "%s", shown.terminal ? "\r\033[K" : "");
    if (done > 0)
        fprintf(stderr, "%s: %.0f of %.0f MB, %.0f %%", doing, 1e-6 * (double)done,
                1e-6 * (double)total, 100 * (double)done / (double)total);
    else
        fprintf(stderr, "%s ...", doing);
    fprintf(stderr, "%s", shown.terminal ? "" : "\n");
}

static void show_finding(void *context, const char *sentence)
{
    folder_command_watched();
    (void)context;
    printf("finding: %s\n", sentence);
}

struct store_watch folder_command_watch(void)
{
    shown.terminal = isatty(STDERR_FILENO) == 1;
    shown.begun = false;
    /* What is done at once needs no lines of progress in a log. */
    shown.next_us = clock_monotonic_us() + (shown.terminal ? 0 : 1000ULL * LINES_EVERY_MS);
    return (struct store_watch){.progress = show_progress, .finding = show_finding};
}

void folder_command_watched(void)
{
    if (shown.terminal && shown.begun)
        fprintf(stderr, "\r\033[K");
    shown.begun = false;
}

void folder_command_report(const struct store_report *report)
{
    printf("sessions %" PRIu64 "\ncheckpoints %" PRIu64 "\nevents %" PRIu64 "\nbytes %" PRIu64
           "\nfindings %" PRIu64 "\n",
           report->sessions, report->checkpoints, report->events, report->bytes, report->findings);
}
