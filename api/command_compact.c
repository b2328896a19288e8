/* `descent compact --data DIR`: the database without its gaps. */
#include <inttypes.h>

#include "api/command_folder.h"
#include "api/commands.h"

int command_compact(char *const *options)
{
    struct folder_command command;
    struct fault fault;
    uint64_t before, after;
    int code = folder_command_open(&command, options, NULL);

    if (code != 0)
        return code;
    struct store_watch watch = folder_command_watch();
    enum status status = store_compact(command.url, &watch, &before, &after, &fault);
    folder_command_watched();
    if (status == STATUS_OK)
        printf("before %" PRIu64 " bytes\nafter %" PRIu64 " bytes\n", before, after);
    else
        code = folder_command_failed(&fault);
    folder_command_close(&command);
    return code;
}
