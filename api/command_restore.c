/* `descent restore --data DIR --from FOLDER`: a backup, checked, where there is no database. */
#include "api/command_folder.h"
#include "api/commands.h"

int command_restore(char *const *options)
{
    struct folder_command command;
    struct store_report report = {0};
    struct fault fault;
    int code = folder_command_open(&command, options, "--from");

    if (code != 0)
        return code;
    struct store_watch watch = folder_command_watch();
    enum status status = store_restore(command.url, command.other, &watch, &report, &fault);
    folder_command_watched();
    if (status == STATUS_OK)
        folder_command_report(&report);
    else
        code = folder_command_failed(&fault);
    folder_command_close(&command);
    return code;
}
