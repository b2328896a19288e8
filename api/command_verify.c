/* `descent verify --data DIR`: everything at rest against its checksums. Exit status 0: clean, 1:
 * there are findings, or it could not be done. */
#include "api/command_folder.h"
#include "api/commands.h"

/* What is found wrong in an open store. Checks of more than bytes come here, after the store's own:
 * each adds to report->findings and tells the watch. */
static enum status examine(struct store *store, const struct store_watch *watch,
                           struct store_report *report, struct fault *fault)
{
    return store_backend(store)->verify(store, watch, report, fault);
}

int command_verify(char *const *options)
{
    struct folder_command command;
    struct store *store = NULL;
    struct store_report report;
    struct fault fault;
    int code = folder_command_open(&command, options, NULL);

    if (code != 0)
        return code;
    struct store_watch watch = folder_command_watch();
    enum status status = store_inspect(command.url, &store, &fault);
    if (status == STATUS_OK)
        status = examine(store, &watch, &report, &fault);
    folder_command_watched();
    if (status == STATUS_OK)
        folder_command_report(&report);
    else
        folder_command_failed(&fault);
    if (status != STATUS_OK || report.findings > 0)
        code = 1;
    store_close(store);
    folder_command_close(&command);
    return code;
}
