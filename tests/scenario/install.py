#!/usr/bin/env python3
"""`make install` and `make uninstall`: what is put where, what the options' file and the shells' completions say, held
against api/config.def and api/commands.def; the systemd units against systemd's own judgement.

    install.py          what needs only bash; systemd, zsh and fish where they are there
    install.py --all    it is a failure when they are not
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = {
    "bin/descent": 0o755,
    "share/man/man1/descent.1": 0o644,
    "lib/systemd/system/descent.service": 0o644,
    "lib/systemd/system/descent.socket": 0o644,
    "lib/sysusers.d/descent.conf": 0o644,
    "share/bash-completion/completions/descent": 0o644,
    "share/zsh/site-functions/_descent": 0o644,
    "share/fish/vendor_completions.d/descent.fish": 0o644,
    "etc/descent/descent.conf": 0o644,
}
EXPOSURE_MAX = 1.5  # of systemd-analyze security, 0 to 10; a port on the network alone is 0.5
BASH = r"""source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); compopt() { :; }; _descent
printf '%s\n' "${COMPREPLY[@]}" """
# What _descent asks of zsh's own functions, in place of an interactive shell.
ZSH = r"""_arguments() { print -rl -- "$@" }; _describe() { print -rl -- "${(@P)2}" }; _files() { }
compdef() { }; file=$1; shift; words=("$@"); CURRENT=$#; eval "$(<$file)" """


def check(condition, words):
    if not condition:
        sys.exit("FAILED: %s" % words)


def run(*command, code=0, **more):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
    check(done.returncode == code, "%s\n%s ended with %d" % (done.stdout, " ".join(map(str, command)), done.returncode))
    return done.stdout


def make(target, folder):
    environment = {name: value for name, value in os.environ.items() if not re.match("MAKE|MFLAGS", name)}
    run("make", "-C", ROOT, target, "PREFIX=%s" % folder, env=environment)


def files_of(folder):
    return {str(path.relative_to(folder)): path.stat().st_mode & 0o7777 for path in folder.rglob("*") if path.is_file()}


def table(name, pattern):
    text = (ROOT / "api" / name).read_text()
    found = re.findall(pattern, text, re.MULTILINE)
    check(len(found) == len(re.findall(r"^(?:OPTION|COMMAND)\(", text, re.MULTILINE)), "%s cannot be read" % name)
    return found


def check_options(path, options):
    """Every option is there with its default, and the file is accepted as it is and with all of them set."""
    text = path.read_text()
    for flag, kind, default in options:
        if flag == "config":
            continue
        line = re.search(r"^#?%s = (.*)$" % flag, text, re.MULTILINE)
        check(line, "%s lacks %s" % (path, flag))
        if flag == "data":
            check(line.group(0) == "data = /var/lib/descent", line.group(0))
        elif kind != "FLAG":
            check(line.group(1) == default, "%s: %s is not the default %s" % (path, line.group(0), default))
    whole = path.with_name("whole.conf")
    whole.write_text(re.sub(r"^#([a-z-]+ = .+)$", r"\1", text, flags=re.MULTILINE))
    for file in path, whole:
        run(path.parents[2] / "bin/descent", "serve", "--config", file, "--check-config")
    whole.unlink()


def check_bash(path, binary, commands, options, folder):
    def completes(*words):
        return run("bash", "-c", BASH, "bash", path, binary, *words).split()

    names = {name for name, _ in commands} | {"serve", "--help", "--version"}
    check(set(completes("")) == names, "bash completes a command by %s" % completes(""))
    check(completes("ver") == ["verify"], "bash completes ver by %s" % completes("ver"))
    flags = {"--" + flag for flag, _, _ in options}
    check(flags <= set(completes("serve", "")), "bash lacks %s" % (flags - set(completes("serve", ""))))
    for name, arguments in commands:
        wanted = set(re.findall(r"--[a-z-]+", arguments))
        check(wanted <= set(completes(name, "x", "--")), "bash lacks options of %s" % name)
    check(completes("serve", "--log", "w") == ["warning"], "bash does not know the levels")
    check(completes("serve", "--log", "=", "w") == ["warning"], "bash does not know --log=")
    check("adam" in completes("optimizers", ""), "bash does not ask for the optimizers")
    check(completes("serve", "--data", str(folder) + "/sh") == ["%s/share" % folder], "bash completes no folder")
    check(completes("serve", "--listen", "") == [], "bash completes what nobody can know")
    return "bash"


def check_zsh(path, binary, commands, options):
    said = run("zsh", "-fc", ZSH, "zsh", path, binary, "serve", "--")
    for flag, _, _ in options:
        check("--%s[" % flag in said, "zsh lacks --%s" % flag)
    said = run("zsh", "-fc", ZSH, "zsh", path, binary, "")
    for name, _ in commands:
        check("\n%s:" % name in said, "zsh lacks %s" % name)
    check("adam" in run("zsh", "-fc", ZSH, "zsh", path, binary, "optimizers", ""), "zsh does not ask for the optimizers")
    return "zsh"


def check_fish(path, binary, commands, options):
    def completes(line):
        said = run("fish", "--no-config", "-c", "source %s; complete -C '%s'" % (path, line),
                   env={**os.environ, "PATH": "%s:%s" % (binary.parent, os.environ["PATH"]), "HOME": str(path.parent)})
        return {line.split("\t")[0] for line in said.splitlines()}

    lacking = {name for name, _ in commands} - completes("descent ")
    check(not lacking, "fish lacks %s" % lacking)
    lacking = {"--" + flag for flag, _, _ in options} - completes("descent serve --")
    check(not lacking, "fish lacks %s" % lacking)
    check(completes("descent serve --log w") == {"warning"}, "fish does not know the levels")
    check("adam" in completes("descent optimizers a"), "fish does not ask for the optimizers")
    return "fish"


def check_units(folder):
    # systemd's judgement of what it will load: unknown words, missing programs, the man page.
    units = [folder / "lib/systemd/system" / name for name in ("descent.service", "descent.socket")]
    said = run("systemd-analyze", "verify", "--man=no", *units)
    check(said.strip() == "", said)
    said = run("systemd-analyze", "security", "--offline=true", "--threshold=%d" % (EXPOSURE_MAX * 10), units[0])
    score = re.search(r"exposure level for .*: ([0-9.]+)", said)
    check(score and float(score.group(1)) <= EXPOSURE_MAX, said)
    return "systemd (exposure %s of 10)" % score.group(1)


def main():
    everything = "--all" in sys.argv[1:]
    commands = table("commands.def", r'^COMMAND\(\w+, (\w+), "([^"]*)"')
    options = table("config.def", r'^OPTION\(\w+, (?=(\w+))\w+, "([^"]+)", "([^"]*)"')
    options = [(flag, kind, default) for kind, flag, default in options]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        make("install", folder)
        check(files_of(folder) == FILES, "installed: %s" % files_of(folder))
        binary = folder / "bin/descent"
        check(run(binary, "--version").startswith("descent "), "the installed program does not run")
        check_options(folder / "etc/descent/descent.conf", options)
        seen, missing = [check_bash(folder / "share/bash-completion/completions/descent", binary, commands, options, folder)], []
        for program, judge in (
                ("zsh", lambda: check_zsh(folder / "share/zsh/site-functions/_descent", binary, commands, options)),
                ("fish", lambda: check_fish(folder / "share/fish/vendor_completions.d/descent.fish", binary, commands, options)),
                ("systemd-analyze", lambda: check_units(folder))):
            if shutil.which(program):
                seen.append(judge())
            else:
                missing.append(program)
        check(not (everything and missing), "not here: %s" % missing)

        (folder / "etc/descent/descent.conf").write_text("log = debug\n")
        make("install", folder)
        check((folder / "etc/descent/descent.conf").read_text() == "log = debug\n", "options were overwritten")
        make("uninstall", folder)
        check(files_of(folder) == {"etc/descent/descent.conf": 0o644}, "left: %s" % files_of(folder))
        (folder / "etc/descent/descent.conf").unlink()
        make("install", folder)
        make("uninstall", folder)
        check(files_of(folder) == {} and not (folder / "etc/descent").exists(), "left: %s" % files_of(folder))
    print("installed and removed; options, and the judgement of %s" % ", ".join(seen))
    if missing:
        print("not here: %s" % ", ".join(missing))


if __name__ == "__main__":
    main()
