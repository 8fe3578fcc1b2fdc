#!/bin/sh
# Installs k3s as a service from an executable on this host: systemd or openrc. Run again to upgrade or to change
# options: the service is restarted only when the executable, the unit or its environment changed.
#
#   ./install.sh                                   a server, from the file k3s beside this script
#   K3S_URL=https://server:6443 K3S_TOKEN=... ./install.sh      an agent that joins
#   INSTALL_K3S_EXEC="server --disable=traefik" ./install.sh    with options
#
# INSTALL_K3S_EXEC           command and options of the service; without a command, server, or agent when K3S_URL is set
# INSTALL_K3S_BIN            the executable to install (default: k3s beside this script; k3s-arm64 on arm64)
# INSTALL_K3S_SKIP_DOWNLOAD  true: use the executable that is installed already
# INSTALL_K3S_SKIP_ENABLE    true: neither enable nor start        INSTALL_K3S_SKIP_START  true: enable, do not start
# INSTALL_K3S_FORCE_RESTART  true: restart even when nothing changed
# INSTALL_K3S_SYMLINK        skip: no links; force: replace what is there (default: only names that are not on PATH)
# INSTALL_K3S_BIN_DIR        folder of the executable (default /usr/local/bin, else /opt/bin)
# INSTALL_K3S_BIN_DIR_READ_ONLY  true: the folder cannot be written; the executable is there already
# INSTALL_K3S_SYSTEMD_DIR    folder of the unit (default /etc/systemd/system)
# INSTALL_K3S_NAME           name of the service is k3s-NAME       INSTALL_K3S_TYPE  type of the unit
set -eu

say() { printf '[INFO]  %s\n' "$*"; }
fatal() {
    printf '[ERROR] %s\n' "$*" >&2
    exit 1
}
true_of() { [ "${1:-}" = true ]; }

# Quotes words so that a shell, and a file of KEY='value' lines, reads them back as they are.
quoted() {
    for word in "$@"; do
        printf "'%s' " "$(printf '%s' "$word" | sed "s/'/'\\\\\\\\''/g")"
    done
}

choose_command() {
    set -- ${INSTALL_K3S_EXEC:-} "$@"
    case "${1:-}" in
        server | agent)
            command=$1
            shift
            ;;
        -* | '')
            if [ -n "${K3S_URL:-}" ]; then command=agent; else command=server; fi
            ;;
        *) fatal "INSTALL_K3S_EXEC begins with '$1': only server and agent can be services" ;;
    esac
    if [ "$command" = agent ]; then
        case " $* " in *" --server"* | *" -s"*) ;; *)
            [ -n "${K3S_URL:-}" ] || fatal "an agent needs the address of a server: set K3S_URL, or --server in INSTALL_K3S_EXEC"
            ;;
        esac
        case " $* " in *" --token"* | *" -t"*) ;; *)
            [ -n "${K3S_TOKEN:-}${K3S_TOKEN_FILE:-}" ] || fatal "an agent needs a token: set K3S_TOKEN or K3S_TOKEN_FILE"
            ;;
        esac
    fi
    words=$(quoted "$command" "$@")
}

choose_places() {
    case "$(uname -m)" in
        x86_64 | amd64) suffix='' ;;
        aarch64 | arm64) suffix='-arm64' ;;
        *) fatal "k3s isn't being built for $(uname -m) yet." ;;
    esac
    service=k3s
    [ "$command" = agent ] && service=k3s-agent
    [ -n "${INSTALL_K3S_NAME:-}" ] && service=k3s-$INSTALL_K3S_NAME
    bin=${INSTALL_K3S_BIN_DIR:-/usr/local/bin}
    if [ -z "${INSTALL_K3S_BIN_DIR:-}" ] && ! mkdir -p "$bin" 2>/dev/null; then bin=/opt/bin; fi
    mkdir -p "$bin" || fatal "cannot make the folder $bin: run as root, or set INSTALL_K3S_BIN_DIR"
    units=${INSTALL_K3S_SYSTEMD_DIR:-/etc/systemd/system}
    init=''
    if command -v systemctl >/dev/null 2>&1; then
        init=systemd
        unit=$units/$service.service
        env_file=$unit.env
    elif command -v rc-service >/dev/null 2>&1; then
        init=openrc
        unit=${INSTALL_K3S_OPENRC_DIR:-/etc/init.d}/$service
        env_file=${INSTALL_K3S_ENV_DIR:-/etc/rancher/k3s}/$service.env
    else
        fatal "neither systemd nor openrc is on this host: start $bin/k3s by your own means"
    fi
}

hashes() {
    cat "$bin/k3s" "$unit" "$env_file" 2>/dev/null | sha256sum
}

install_executable() {
    if true_of "${INSTALL_K3S_SKIP_DOWNLOAD:-}" || true_of "${INSTALL_K3S_BIN_DIR_READ_ONLY:-}"; then
        [ -x "$bin/k3s" ] || fatal "there is no executable $bin/k3s: leave INSTALL_K3S_SKIP_DOWNLOAD out"
        return
    fi
    here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
    from=${INSTALL_K3S_BIN:-$here/k3s$suffix}
    [ -f "$from" ] || fatal "there is no file $from: put the executable there, or name it with INSTALL_K3S_BIN"
    sums=$(dirname -- "$from")/sha256sum.txt
    if [ -f "$sums" ]; then
        wanted=$(grep "  $(basename -- "$from")\$" "$sums") || fatal "$sums does not tell of $from: get both again"
        (cd "$(dirname -- "$from")" && echo "$wanted" | sha256sum -c >/dev/null 2>&1) ||
            fatal "$from is not the file that $sums tells of: get both again"
    fi
    if cmp -s "$from" "$bin/k3s"; then
        say "$bin/k3s is this executable already"
        return
    fi
    say "installing $bin/k3s"
    cp "$from" "$bin/.k3s.new"
    chmod 755 "$bin/.k3s.new"
    mv -f "$bin/.k3s.new" "$bin/k3s"
}

make_links() {
    [ "${INSTALL_K3S_SYMLINK:-}" = skip ] && return
    true_of "${INSTALL_K3S_BIN_DIR_READ_ONLY:-}" && return
    for name in kubectl crictl ctr; do
        if [ -e "$bin/$name" ] && ! [ -L "$bin/$name" ] && [ "${INSTALL_K3S_SYMLINK:-}" != force ]; then
            say "leaving $bin/$name as it is"
        elif [ "${INSTALL_K3S_SYMLINK:-}" != force ] && found=$(command -v "$name" 2>/dev/null) && [ "$found" != "$bin/$name" ]; then
            say "no link $name: there is $found"
        else
            ln -sf k3s "$bin/$name"
        fi
    done
}

write_env() {
    mkdir -p "$(dirname -- "$env_file")"
    rm -f "$env_file.new"
    (umask 077 && : >"$env_file.new")
    # systemd takes the rest of a line as it is; openrc's file is read by a shell.
    as_read=''
    [ "$init" = openrc ] && as_read="s/'/'\\\\''/g; s/=\\(.*\\)/='\\1'/"
    env | grep -E '^(K3S_|CONTAINERD_|(HTTP|HTTPS|NO)_PROXY=|(http|https|no)_proxy=)' | sort | sed "$as_read" >>"$env_file.new"
    mv -f "$env_file.new" "$env_file"
}

write_unit() {
    mkdir -p "$(dirname -- "$unit")"
    if [ "$init" = openrc ]; then
        cat >"$unit" <<OPENRC
#!/sbin/openrc-run
description="Lightweight Kubernetes"
supervisor=supervise-daemon
command=$bin/k3s
command_args="$words"
output_log=/var/log/$service.log
error_log=/var/log/$service.log
respawn_delay=5
respawn_max=0
pidfile="/run/$service.pid"
set -o allexport
[ -f $env_file ] && . $env_file
set +o allexport
depend() {
    after network-online
    want cgroups
}
OPENRC
        chmod 755 "$unit"
        return
    fi
    type=notify
    [ "$command" = agent ] && type=exec
    cat >"$unit" <<UNIT
[Unit]
Description=Lightweight Kubernetes
After=network-online.target
Wants=network-online.target

[Install]
WantedBy=multi-user.target

[Service]
Type=${INSTALL_K3S_TYPE:-$type}
EnvironmentFile=-$env_file
KillMode=process
Delegate=yes
LimitNOFILE=1048576
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity
TimeoutStartSec=0
Restart=always
RestartSec=5s
ExecStartPre=-/sbin/modprobe br_netfilter
ExecStartPre=-/sbin/modprobe overlay
ExecStart=$bin/k3s $words
UNIT
    chmod 644 "$unit"
}

write_removers() {
    true_of "${INSTALL_K3S_BIN_DIR_READ_ONLY:-}" && return
    cat >"$bin/k3s-killall.sh" <<KILLALL
#!/bin/sh
# Stops every k3s service, every pod, and what they left in the network and on mounts; keeps data.
[ "\$(id -u)" = 0 ] || exec sudo "\$0" "\$@"
for unit in $units/k3s*.service; do
    [ -f "\$unit" ] && systemctl stop "\$(basename "\$unit")"
done
for unit in ${INSTALL_K3S_OPENRC_DIR:-/etc/init.d}/k3s*; do
    [ -x "\$unit" ] && command -v rc-service >/dev/null && rc-service "\$(basename "\$unit")" stop
done
$bin/k3s uninstall --keep-data
KILLALL
    cat >"$bin/$service-uninstall.sh" <<UNINSTALL
#!/bin/sh
# Removes $service from this host; what other k3s services share stays as long as there is one.
[ "\$(id -u)" = 0 ] || exec sudo "\$0" "\$@"
if [ $init = systemd ]; then
    systemctl stop $service
    systemctl disable $service
    rm -f $unit $env_file
    systemctl daemon-reload
else
    rc-service $service stop
    rc-update delete $service default
    rm -f $unit $env_file /var/log/$service.log
fi
rm -f $bin/$service-uninstall.sh
for other in $units/k3s*.service ${INSTALL_K3S_OPENRC_DIR:-/etc/init.d}/k3s*; do
    [ -f "\$other" ] || continue
    echo "other k3s services are on this host: leaving shared parts"
    exit 0
done
$bin/k3s uninstall
for name in kubectl crictl ctr; do
    [ "\$(readlink $bin/\$name)" = k3s ] && rm -f $bin/\$name
done
rm -f $bin/k3s $bin/k3s-killall.sh
UNINSTALL
    chmod 755 "$bin/k3s-killall.sh" "$bin/$service-uninstall.sh"
}

start() {
    true_of "${INSTALL_K3S_SKIP_ENABLE:-}" && return
    if [ "$init" = systemd ]; then
        systemctl enable "$unit" >/dev/null
        systemctl daemon-reload >/dev/null
    else
        rc-update add "$service" default >/dev/null
    fi
    true_of "${INSTALL_K3S_SKIP_START:-}" && return
    if [ "$before" = "$(hashes)" ] && ! true_of "${INSTALL_K3S_FORCE_RESTART:-}"; then
        say "nothing changed: $service is not restarted"
        return
    fi
    say "starting $service"
    if [ "$init" = systemd ]; then systemctl restart "$service"; else rc-service "$service" restart; fi
}

choose_command "$@"
choose_places
before=$(hashes)
install_executable
make_links
write_env
write_unit
write_removers
start
