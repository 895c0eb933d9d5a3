# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_whimbrel_global_optspecs
    string join \n json socket= config= h/help V/version
end

function __fish_whimbrel_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_whimbrel_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_whimbrel_using_subcommand
    set -l cmd (__fish_whimbrel_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c whimbrel -n "__fish_whimbrel_needs_command" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_needs_command" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_needs_command" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -s h -l help -d 'Print help'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -s V -l version -d 'Print version'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "create" -d 'Define a guest from a file, and start it'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "start" -d 'Start a guest that was defined before'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "stop" -d 'Ask a guest to shut down, and wait until it has'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "shutdown" -d 'Ask a guest to shut down, and wait until it has'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "destroy" -d 'End a guest at once: the same as `stop --now`. Disks are never touched'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "reboot" -d 'Ask a guest to shut down, and start it again'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "pause" -d 'Stop a guest\'s virtual CPUs where they are. It keeps its memory'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "unpause" -d 'Let a paused guest go on'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "list" -d 'List guests: where they are, what they are doing, what they use'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "ls" -d 'List guests: where they are, what they are doing, what they use'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "ps" -d 'List guests: where they are, what they are doing, what they use'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "show" -d 'Show what a guest is, where it is, and which paired hosts could take it'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "edit" -d 'Change the definition of a guest. A running guest keeps the old one until its next start'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "adopt" -d 'Take over a guest that was started with the engine\'s own tool (Xen\'s `xl`)'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "rm" -d 'Forget the definition of a stopped guest. Disks are never touched'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "console" -d 'Attach to a guest\'s console. Ctrl+] leaves it'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "plan" -d 'Check what a migration would meet, and forecast what it would cost. Nothing is changed'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "migrate" -d 'Move a guest to another host while it runs'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "watch" -d 'Watch a guest\'s migration, or everything that happens. Ctrl-C leaves; nothing is cancelled'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "cancel" -d 'Give up a guest\'s migration: the guest stays where it is'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "cutover" -d 'Tell a migration that is held to cut over, and wait for its end'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "report" -d 'Show what a guest\'s last migration cost, or list the migrations of this host'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "recover" -d 'Settle which host owns a guest in doubt, or explain what each host knows'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "log" -d 'Show what happened: on this host and, for moves, on the other one. Times are UTC'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "info" -d 'Show what this host is and has'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "doctor" -d 'Check whether this host is fit to run guests and to take them in'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "host" -d 'Pair hosts, and see those that are paired'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "relocation" -d 'Open or close this host for moving guests. Kept over restarts of the daemon'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "pages" -d 'See and drop the memory that this host keeps of guests that have left it'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "reload" -d 'Have the daemon read its configuration again'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "import" -d 'Convert an old `xend-config.sxp` into a `whimbrel.toml`'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "daemon" -d 'Run the daemon, in the foreground'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "carry"
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "xl-pipe"
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "completions" -d 'Print the completions of a shell'
complete -c whimbrel -n "__fish_whimbrel_needs_command" -f -a "man" -d 'Print the manual page, or write the pages of all commands'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand create" -l format -d 'How the file is written [default: `toml` for `*.toml`, else `cfg`]' -r -f -a "toml\t''
cfg\t''"
complete -c whimbrel -n "__fish_whimbrel_using_subcommand create" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand create" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand create" -s c -l console -d 'Attach to its console at once; Ctrl+] leaves it'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand create" -l no-start -d 'Define it only'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand create" -l transient -d 'Forget its definition when it stops'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand create" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand create" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand start" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand start" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand start" -s c -l console -d 'Attach to its console at once'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand start" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand start" -s h -l help -d 'Print help'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand stop" -l timeout -d 'How long to wait for it: `90s`, `5m` [default: 2m]' -r
complete -c whimbrel -n "__fish_whimbrel_using_subcommand stop" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand stop" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand stop" -l all -d 'Stop every guest of this host, all of them at once'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand stop" -l now -d 'End it at once, without asking it'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand stop" -l force -d 'With `--all`: end what has not shut down in time, or cannot be asked, like pulling the plug. A migration out of this host that is not past its point of no return is cancelled'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand stop" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand stop" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand shutdown" -l timeout -d 'How long to wait for it: `90s`, `5m` [default: 2m]' -r
complete -c whimbrel -n "__fish_whimbrel_using_subcommand shutdown" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand shutdown" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand shutdown" -l all -d 'Stop every guest of this host, all of them at once'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand shutdown" -l now -d 'End it at once, without asking it'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand shutdown" -l force -d 'With `--all`: end what has not shut down in time, or cannot be asked, like pulling the plug. A migration out of this host that is not past its point of no return is cancelled'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand shutdown" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand shutdown" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand destroy" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand destroy" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand destroy" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand destroy" -s h -l help -d 'Print help'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand reboot" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand reboot" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand reboot" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand reboot" -s h -l help -d 'Print help'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand pause" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand pause" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand pause" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand pause" -s h -l help -d 'Print help'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand unpause" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand unpause" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand unpause" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand unpause" -s h -l help -d 'Print help'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand list" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand list" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand list" -s a -l all-hosts -d 'Ask all paired hosts, too'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand list" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand ls" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand ls" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand ls" -s a -l all-hosts -d 'Ask all paired hosts, too'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand ls" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand ls" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand ps" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand ps" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand ps" -s a -l all-hosts -d 'Ask all paired hosts, too'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand ps" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand ps" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand show" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand show" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand show" -l toml -d 'Print its definition instead, as a guest file'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand show" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand show" -s h -l help -d 'Print help'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand edit" -l file -d 'Take the new definition from a file instead of opening `$EDITOR`; `-`: standard input' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand edit" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand edit" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand edit" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand edit" -s h -l help -d 'Print help'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand adopt" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand adopt" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand adopt" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand adopt" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand rm" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand rm" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand rm" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand rm" -s h -l help -d 'Print help'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand console" -l escape -d 'The key that leaves the console: `^]`, `^A`, a character, or `none`' -r
complete -c whimbrel -n "__fish_whimbrel_using_subcommand console" -l scrollback -d 'How much of what was shown before to see first, in bytes' -r
complete -c whimbrel -n "__fish_whimbrel_using_subcommand console" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand console" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand console" -l force -d 'Take over from whoever types now'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand console" -l read-only -d 'Watch only; works without a terminal, too'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand console" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand console" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand plan" -l max-pause -d 'The longest pause the guest may see: `100ms` [default: as configured]' -r
complete -c whimbrel -n "__fish_whimbrel_using_subcommand plan" -l deadline -d 'The longest it may take in all: `10m` [default: as configured]' -r
complete -c whimbrel -n "__fish_whimbrel_using_subcommand plan" -l max-slowdown -d 'How much the guest may be slowed down to be caught up with: `30%` [default: as configured]' -r
complete -c whimbrel -n "__fish_whimbrel_using_subcommand plan" -l on-miss -d 'What happens where that cannot be kept: the guest stays, stands still for longer, is slowed down further, or runs on the target before its memory is there [default: as configured]' -r -f -a "cancel\t''
pause\t''
throttle\t''
postcopy\t''"
complete -c whimbrel -n "__fish_whimbrel_using_subcommand plan" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand plan" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand plan" -l stop-and-copy -d 'Plan for stopping the guest first and copying then'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand plan" -l prove -d 'Start the target engine, paused, as the best proof, and end it again'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand plan" -l no-probe -d 'Send no frames on the guest\'s bridges to see whether they reach the target'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand plan" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand plan" -s h -l help -d 'Print help'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand migrate" -l bandwidth -d 'The most it may send: `100MiB/s`, `1Gbit/s` [default: as configured]' -r
complete -c whimbrel -n "__fish_whimbrel_using_subcommand migrate" -l max-pause -d 'The longest pause the guest may see: `100ms` [default: as configured]' -r
complete -c whimbrel -n "__fish_whimbrel_using_subcommand migrate" -l deadline -d 'The longest it may take in all: `10m` [default: as configured]' -r
complete -c whimbrel -n "__fish_whimbrel_using_subcommand migrate" -l max-slowdown -d 'How much the guest may be slowed down to be caught up with: `30%` [default: as configured]' -r
complete -c whimbrel -n "__fish_whimbrel_using_subcommand migrate" -l on-miss -d 'What happens where that cannot be kept: the guest stays, stands still for longer, is slowed down further, or runs on the target before its memory is there [default: as configured]' -r -f -a "cancel\t''
pause\t''
throttle\t''
postcopy\t''"
complete -c whimbrel -n "__fish_whimbrel_using_subcommand migrate" -l carrier -d 'How memory travels: `tunnel` or `pages` [default: the planner chooses]' -r
complete -c whimbrel -n "__fish_whimbrel_using_subcommand migrate" -l channels -d 'How many data channels [default: the planner chooses]' -r
complete -c whimbrel -n "__fish_whimbrel_using_subcommand migrate" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand migrate" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand migrate" -l stop-and-copy -d 'Stop the guest first and copy then'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand migrate" -s y -l yes -d 'Try it also where the plan says that the bargain will not be kept, and do not ask'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand migrate" -l hold -d 'Converge, stay so, and cut over when `whimbrel cutover GUEST` says so'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand migrate" -l no-probe -d 'Send no frames on the guest\'s bridges to see whether they reach the target'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand migrate" -l rehearse -d 'Do everything but the handing over, clean up, and say what would have happened'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand migrate" -s d -l detach -d 'Do not wait for the end; `whimbrel watch GUEST` shows it'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand migrate" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand migrate" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand watch" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand watch" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand watch" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand watch" -s h -l help -d 'Print help'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand cancel" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand cancel" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand cancel" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand cancel" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand cutover" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand cutover" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand cutover" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand cutover" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand report" -l html -d 'Write the report as one page with plots, for a browser' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand report" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand report" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand report" -s a -l all -d 'List all kept migrations of the guest, not only the last'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand report" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand report" -s h -l help -d 'Print help'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand recover" -l on -d 'The host to start the guest on [default: this one]' -r
complete -c whimbrel -n "__fish_whimbrel_using_subcommand recover" -l is-off -d 'State that this host is off, and will not come back with the guest running' -r
complete -c whimbrel -n "__fish_whimbrel_using_subcommand recover" -l fence -d 'Have the configured fence command switch this host off first' -r
complete -c whimbrel -n "__fish_whimbrel_using_subcommand recover" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand recover" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand recover" -l despite-damage -d 'State that no damaged record says anything newer than what can still be read'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand recover" -s y -l yes -d 'Do not ask for a name to be typed once more'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand recover" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand recover" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand log" -l since -d 'Only lines since then: `10m` ago, or `2026-11-22`, or `2026-11-22T21:04` (UTC)' -r
complete -c whimbrel -n "__fish_whimbrel_using_subcommand log" -s n -l lines -d 'Only the newest lines, this many' -r
complete -c whimbrel -n "__fish_whimbrel_using_subcommand log" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand log" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand log" -s f -l follow -d 'Go on with new lines as they come'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand log" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand log" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand info" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand info" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand info" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand info" -s h -l help -d 'Print help'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand doctor" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand doctor" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand doctor" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand host; and not __fish_seen_subcommand_from invite join list ls forget" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand host; and not __fish_seen_subcommand_from invite join list ls forget" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand host; and not __fish_seen_subcommand_from invite join list ls forget" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand host; and not __fish_seen_subcommand_from invite join list ls forget" -s h -l help -d 'Print help'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand host; and not __fish_seen_subcommand_from invite join list ls forget" -f -a "invite" -d 'Invite another host: prints a token for `whimbrel host join` there'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand host; and not __fish_seen_subcommand_from invite join list ls forget" -f -a "join" -d 'Accept another host\'s invitation: reads the token from the prompt, or from standard input'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand host; and not __fish_seen_subcommand_from invite join list ls forget" -f -a "list" -d 'List this host and those paired with it'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand host; and not __fish_seen_subcommand_from invite join list ls forget" -f -a "ls" -d 'List this host and those paired with it'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand host; and not __fish_seen_subcommand_from invite join list ls forget" -f -a "forget" -d 'End the pairing with a host'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand host; and __fish_seen_subcommand_from invite" -l address -d 'An address of this host to put into the token; may be repeated [default: all it has]' -r
complete -c whimbrel -n "__fish_whimbrel_using_subcommand host; and __fish_seen_subcommand_from invite" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand host; and __fish_seen_subcommand_from invite" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand host; and __fish_seen_subcommand_from invite" -l no-wait -d 'Do not wait for the other host'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand host; and __fish_seen_subcommand_from invite" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand host; and __fish_seen_subcommand_from invite" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand host; and __fish_seen_subcommand_from join" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand host; and __fish_seen_subcommand_from join" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand host; and __fish_seen_subcommand_from join" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand host; and __fish_seen_subcommand_from join" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand host; and __fish_seen_subcommand_from list" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand host; and __fish_seen_subcommand_from list" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand host; and __fish_seen_subcommand_from list" -l baseline -d 'Show the CPU model and the machine type that fit all of them instead'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand host; and __fish_seen_subcommand_from list" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand host; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand host; and __fish_seen_subcommand_from ls" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand host; and __fish_seen_subcommand_from ls" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand host; and __fish_seen_subcommand_from ls" -l baseline -d 'Show the CPU model and the machine type that fit all of them instead'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand host; and __fish_seen_subcommand_from ls" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand host; and __fish_seen_subcommand_from ls" -s h -l help -d 'Print help'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand host; and __fish_seen_subcommand_from forget" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand host; and __fish_seen_subcommand_from forget" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand host; and __fish_seen_subcommand_from forget" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand host; and __fish_seen_subcommand_from forget" -s h -l help -d 'Print help'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand relocation" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand relocation" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand relocation" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand relocation" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand pages; and not __fish_seen_subcommand_from list ls drop" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand pages; and not __fish_seen_subcommand_from list ls drop" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand pages; and not __fish_seen_subcommand_from list ls drop" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand pages; and not __fish_seen_subcommand_from list ls drop" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand pages; and not __fish_seen_subcommand_from list ls drop" -f -a "list" -d 'List whose memory is kept here, and until when'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand pages; and not __fish_seen_subcommand_from list ls drop" -f -a "ls" -d 'List whose memory is kept here, and until when'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand pages; and not __fish_seen_subcommand_from list ls drop" -f -a "drop" -d 'Drop what is kept of a guest here'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand pages; and __fish_seen_subcommand_from list" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand pages; and __fish_seen_subcommand_from list" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand pages; and __fish_seen_subcommand_from list" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand pages; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand pages; and __fish_seen_subcommand_from ls" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand pages; and __fish_seen_subcommand_from ls" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand pages; and __fish_seen_subcommand_from ls" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand pages; and __fish_seen_subcommand_from ls" -s h -l help -d 'Print help'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand pages; and __fish_seen_subcommand_from drop" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand pages; and __fish_seen_subcommand_from drop" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand pages; and __fish_seen_subcommand_from drop" -l all -d 'Drop what is kept of all guests'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand pages; and __fish_seen_subcommand_from drop" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand pages; and __fish_seen_subcommand_from drop" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand reload" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand reload" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand reload" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand reload" -s h -l help -d 'Print help'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand import" -s o -l output -d 'Where to write the new one; must not exist yet [default: standard output]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand import" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand import" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand import" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand import" -s h -l help -d 'Print help'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand daemon" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand daemon" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand daemon" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand daemon" -s h -l help -d 'Print help'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand carry" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand carry" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand carry" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand carry" -s h -l help -d 'Print help'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand xl-pipe" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand xl-pipe" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand xl-pipe" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand xl-pipe" -s h -l help -d 'Print help'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand completions" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand completions" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand completions" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand completions" -s h -l help -d 'Print help'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand man" -l directory -d 'Write all pages into this folder' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand man" -l socket -d 'The daemon\'s socket [default: as configured]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand man" -l config -d 'The daemon\'s configuration [default: /etc/whimbrel/whimbrel.toml]' -r -F
complete -c whimbrel -n "__fish_whimbrel_using_subcommand man" -l json -d 'Print data and problems as JSON'
complete -c whimbrel -n "__fish_whimbrel_using_subcommand man" -s h -l help -d 'Print help'
