# Reads `descent --help` into tables, from which completion.awk and conf.awk, given after this one,
# print what they make of it:
#   commands: command[c], arguments[c], meaning[c]           c from 1 to command_count
#   options:  flag[o], unit[o] (empty: it takes no value), about[o], limits[o], initial[o]

/^Options/ { in_options = 1 }

/^  descent [a-z]/ {
    command[++command_count] = $2
    text = $0
    sub(/^  descent [^ ]* ?/, "", text)
    arguments[command_count] = text
}

/^  --/ && in_options {
    flag[++option_count] = substr($1, 3)
    text = $0
    sub(/^  --[^ ]* ?/, "", text)
    unit[option_count] = text
}

/^      / {
    text = $0
    sub(/^ */, "", text)
    if (!in_options) {
        meaning[command_count] = text
    } else if (text !~ /DESCENT_[A-Z0-9_]+$/) {
        about[option_count] = about[option_count] == "" ? text : about[option_count] " " text
    } else {
        sub(/(; )?DESCENT_[A-Z0-9_]+$/, "", text)
        if (match(text, /default /)) {
            initial[option_count] = substr(text, RSTART + 8)
            text = substr(text, 1, RSTART - 1)
            sub(/; $/, "", text)
        }
        limits[option_count] = text
    }
}

# The words of "debug, info or off"; empty when a text is no such list.
function listed(text, words, items, i, n) {
    n = split(text, items, /, | or /)
    words = items[1]
    for (i = 1; i <= n; i++) {
        if (n == 1 || items[i] !~ /^[a-z0-9-]+$/)
            return ""
        words = i == 1 ? items[i] : words " " items[i]
    }
    return words
}

# What an option's value is: "none", "file", "folder", "words" or "free".
function kind(unit, about) {
    if (unit == "")
        return "none"
    if (unit == "file" || unit == "FILE")
        return "file"
    if (unit == "folder" || unit == "DIR" || unit == "FOLDER")
        return "folder"
    return listed(about) != "" ? "words" : "free"
}

# The options of a command, as numbers: all of the table where it says OPTIONS, and those that its
# arguments name, which join the table when they are new.
function options_of(c, out, n, o, parts, count, i, name, known) {
    n = 0
    if (arguments[c] ~ /OPTIONS/)
        for (o = 1; o <= table_count; o++)
            out[++n] = o
    count = split(arguments[c], parts, /[][ |]+/)
    for (i = 1; i <= count; i++) {
        if (parts[i] !~ /^--/)
            continue
        name = substr(parts[i], 3)
        sub(/=.*/, "", name)
        known = 0
        for (o = 1; o <= option_count; o++)
            if (flag[o] == name)
                known = o
        if (!known) {
            flag[known = ++option_count] = name
            unit[known] = parts[i + 1] ~ /^[A-Z:_]+$/ ? parts[i + 1] : ""
        }
        if (known > table_count || arguments[c] !~ /OPTIONS/)
            out[++n] = known
    }
    return n
}

# The words that a command takes first: "create|list [OPTIONS]".
function words_of(c, first) {
    first = arguments[c]
    sub(/ .*/, "", first)
    gsub(/[][]/, "", first)
    return first ~ /^[a-z]+(\|[a-z]+)+$/ ? first : ""
}

END { table_count = option_count }
