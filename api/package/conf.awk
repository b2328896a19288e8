# With help.awk: the file of --config, every option a comment that shows its default.
#   -v data=DIR     the one option that is set: where an installed server keeps its database
END {
    print "# The options of descent(1), each with its default. Flags and DESCENT_<NAME> in the environment win"
    print "# over this file. `descent serve --config FILE --check-config` judges it, and `systemctl restart"
    print "# descent` makes a change work."
    for (o = 1; o <= option_count; o++) {
        if (flag[o] == "config")
            continue
        note = unit[o]
        if (limits[o] != "")
            note = note ", " limits[o]
        if (unit[o] == "")
            note = "true or false"
        printf "\n# %s (%s)\n", about[o], note
        if (flag[o] == "data")
            print "data = " data
        else
            print "#" flag[o] " = " initial[o]
    }
}
