/* `descent verify --data DIR`: everything at rest against its checksums, then every session
 * replayed against the hashes and receipts it has told. Exit status 0: clean, 1:
 * there are findings, or it could not be done. */
#include <inttypes.h>
#include <stdio.h>

#include "api/command_folder.h"
#include "api/commands.h"
#include "service/session/engine.h"

/* What is damaged in an open store, and what does not lead where it should. */
static enum status examine(struct store *store, const struct store_watch *watch,
                           struct store_report *report, struct verify_report *replayed,
                           struct fault *fault)
{
    enum status status = store_backend(store)->verify(store, watch, report, fault);

    *replayed = (struct verify_report){.sessions = 0};
    if (status != STATUS_OK)
        return status;
    uint64_t damaged = report->findings;
    status = engine_verify(store, watch, replayed, fault);
    report->findings += replayed->findings;
    if (status == STATUS_OK || damaged == 0)
        return status;
    watch->finding(watch->context, fault->detail); /* for that, nothing could be replayed */
    report->findings++;
    return STATUS_OK;
}

int command_verify(char *const *options)
{
    struct folder_command command;
    struct store *store = NULL;
    struct store_report report;
    struct verify_report replayed;
    struct fault fault;
    int code = folder_command_open(&command, options, NULL);

    if (code != 0)
        return code;
    struct store_watch watch = folder_command_watch();
    enum status status = store_inspect(command.url, &store, &fault);
    if (status == STATUS_OK)
        status = examine(store, &watch, &report, &replayed, &fault);
    folder_command_watched();
    if (status == STATUS_OK) {
        printf("steps %" PRIu64 "\nhashes %" PRIu64 "\n", replayed.steps, replayed.hashes);
        folder_command_report(&report);
    } else
        folder_command_failed(&fault);
    if (status != STATUS_OK || report.findings > 0)
        code = 1;
    store_close(store);
    folder_command_close(&command);
    return code;
}
