# With help.awk: the completion of a shell.
#   -v shell=bash|zsh|fish

# Inside '...' of any of the three shells.
function quoted(text) {
    gsub(/\\/, "\\\\", text)
    gsub(/'/, shell == "fish" ? "\\'" : "'\\''", text)
    return text
}

# --- bash ---
function bash(c, n, o, i, k, words, of_kind) {
    for (c = 1; c <= command_count; c++) {
        n = options_of(c, list)
        words = ""
        for (i = 1; i <= n; i++)
            words = words " --" flag[list[i]]
        body[c] = words
    }
    for (o = 1; o <= option_count; o++) {
        k = kind(unit[o], about[o])
        if (k == "words")
            print_words[o] = listed(about[o])
        of_kind[k] = of_kind[k] (of_kind[k] == "" ? "" : "|") "--" flag[o]
    }
    print "# bash completion of descent; made of `descent --help`"
    print "_descent() {"
    print "    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} words="
    print ""
    print "    COMPREPLY=()"
    print "    if [[ $current == = ]]; then # --name= is three words to bash, --name=v too"
    print "        current="
    print "    elif [[ $before == = ]]; then"
    print "        before=${COMP_WORDS[COMP_CWORD - 2]}"
    print "    fi"
    print "    case $before in"
    if (of_kind["file"] != "")
        print "        " of_kind["file"] ") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- \"$current\"); return ;;"
    if (of_kind["folder"] != "")
        print "        " of_kind["folder"] ") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- \"$current\"); return ;;"
    for (o = 1; o <= option_count; o++)
        if (o in print_words)
            print "        --" flag[o] ") mapfile -t COMPREPLY < <(compgen -W '" print_words[o] "' -- \"$current\"); return ;;"
    if (of_kind["free"] != "")
        print "        " of_kind["free"] ") return ;;"
    print "    esac"
    print "    if ((COMP_CWORD == 1)); then"
    words = ""
    for (c = 1; c <= command_count; c++)
        words = words command[c] " "
    print "        words='" words "--help --version'"
    print "    else"
    print "        case ${COMP_WORDS[1]} in"
    for (c = 1; c <= command_count; c++) {
        words = words_of(c)
        gsub(/\|/, " ", words)
        if (arguments[c] == "[NAME]")
            print "            " command[c] ") ((COMP_CWORD > 2)) || words=$(\"${COMP_WORDS[0]}\" " command[c] " 2>/dev/null | cut -d ' ' -f 1) ;;"
        else if (words != "") {
            print "            " command[c] ")"
            print "                if ((COMP_CWORD == 2)); then words='" words "'; else words='" substr(body[c], 2) "'; fi"
            print "                ;;"
        } else
            print "            " command[c] ") words='" substr(body[c], 2) "' ;;"
    }
    print "        esac"
    print "    fi"
    print "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\")"
    print "}"
    print "complete -F _descent descent"
}

# --- zsh ---
function zsh_option(o, k, text) {
    text = about[o] != "" ? about[o] : tolower(unit[o])
    gsub(/[][]/, "\\\\&", text)
    text = "'--" flag[o] "[" quoted(text) "]"
    k = kind(unit[o], about[o])
    if (k == "none")
        return text "'"
    text = text ":" quoted(unit[o] ~ /:/ ? "address" : unit[o]) ":"
    if (k == "file")
        text = text "_files"
    else if (k == "folder")
        text = text "_files -/"
    else if (k == "words")
        text = text "(" listed(about[o]) ")"
    return text "'"
}

function zsh(c, i, n, words) {
    print "#compdef descent"
    print "# zsh completion of descent; made of `descent --help`"
    print "_descent() {"
    print "    local program=$words[1]"
    print "    local -a commands=("
    for (c = 1; c <= command_count; c++)
        print "        '" command[c] ":" quoted(meaning[c]) "'"
    print "    )"
    print "    if ((CURRENT == 2)); then"
    print "        _describe command commands"
    print "        _arguments '--help[print what there is]' '--version[print the version]'"
    print "        return"
    print "    fi"
    print "    shift words"
    print "    ((CURRENT--))"
    print "    case $words[1] in"
    for (c = 1; c <= command_count; c++) {
        printf "        %s)\n            _arguments", command[c]
        words = words_of(c)
        gsub(/\|/, " ", words)
        if (arguments[c] == "[NAME]")
            printf " \"1:name:(${(f)\"$($program %s 2>/dev/null | cut -d ' ' -f 1)\"})\"", command[c]
        else if (words != "")
            printf " '1:what:(%s)'", words
        n = options_of(c, list)
        for (i = 1; i <= n; i++)
            printf " \\\n                %s", zsh_option(list[i])
        print "\n            ;;"
    }
    print "    esac"
    print "}"
    print "_descent \"$@\""
}

# --- fish ---
function fish(c, i, n, o, k, words, on, line) {
    print "# fish completion of descent; made of `descent --help`"
    print "complete -c descent -f"
    on = "complete -c descent -n __fish_use_subcommand"
    for (c = 1; c <= command_count; c++)
        print on " -a " command[c] " -d '" quoted(meaning[c]) "'"
    print on " -l help -d 'print what there is'"
    print on " -l version -d 'print the version'"
    for (c = 1; c <= command_count; c++) {
        on = "complete -c descent -n '__fish_seen_subcommand_from " command[c] "'"
        words = words_of(c)
        gsub(/\|/, " ", words)
        if (arguments[c] == "[NAME]")
            print on " -a '(descent " command[c] " 2>/dev/null | cut -d \" \" -f 1)'"
        else if (words != "")
            print on " -a '" words "'"
        n = options_of(c, list)
        for (i = 1; i <= n; i++) {
            o = list[i]
            k = kind(unit[o], about[o])
            line = on " -l " flag[o]
            if (k == "file")
                line = line " -r -F"
            else if (k == "folder")
                line = line " -x -a '(__fish_complete_directories)'"
            else if (k == "words")
                line = line " -x -a '" listed(about[o]) "'"
            else if (k == "free")
                line = line " -x"
            print line (about[o] != "" ? " -d '" quoted(about[o]) "'" : "")
        }
    }
}

END {
    if (shell == "bash")
        bash()
    else if (shell == "zsh")
        zsh()
    else
        fish()
}
