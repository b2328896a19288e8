/* `descent backup --data DIR --to FOLDER`: the database as of one moment, beside a running server
 * or not. */
#include <inttypes.h>

#include "api/command_folder.h"
#include "api/commands.h"

int command_backup(char *const *options)
{
    struct folder_command command;
    struct fault fault;
    uint64_t bytes;
    int code = folder_command_open(&command, options, "--to");

    if (code != 0)
        return code;
    struct store_watch watch = folder_command_watch();
    enum status status = store_backup(command.url, command.other, &watch, &bytes, &fault);
    folder_command_watched();
    if (status == STATUS_OK)
        printf("%s/descent.db: %" PRIu64 " bytes\n", command.other, bytes);
    else
        code = folder_command_failed(&fault);
    folder_command_close(&command);
    return code;
}
