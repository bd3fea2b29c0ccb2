#!/usr/bin/env bash
# A real S3 server on loopback for the tests: Ceph's radosgw over one monitor and one OSD in memory.
#
#     tests/support/radosgw.sh start FOLDER PORT [ACCESS_KEY SECRET_KEY]    cluster and gateway; returns when it answers
#     tests/support/radosgw.sh gateway FOLDER PORT                          the gateway again, after it was killed
#     tests/support/radosgw.sh stop FOLDER                                  everything
#
# Needs (Debian): apt-get install --no-install-recommends radosgw ceph-mon ceph-osd ceph-mgr ceph-common
# Nothing outside FOLDER is written. Pids are in FOLDER/*.pid.
set -euo pipefail

folder=$(mkdir -p "$2" && cd "$2" && pwd)
port=${3:-}
export CEPH_CONF="$folder/ceph.conf"

wait_for() {  # SECONDS COMMAND…
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || { echo "gave up on: $*" >&2; tail -n 20 "$folder"/*.log >&2; exit 1; }
        sleep 0.2
    done
}

run() {  # NAME COMMAND…: in the background, its pid and log in the folder
    local name=$1
    shift
    setsid "$@" >"$folder/$name.log" 2>&1 </dev/null &
    echo $! >"$folder/$name.pid"
}

configure() {
    local fsid monitor=$((port + 1))
    fsid=$(cat /proc/sys/kernel/random/uuid)
    # cephx stays on: without it radosgw hangs. One copy of everything, and no warnings about that.
    cat >"$CEPH_CONF" <<EOF
[global]
fsid = $fsid
mon host = [v2:127.0.0.1:$monitor]
public addr = 127.0.0.1
keyring = $folder/keyring
run dir = $folder
admin socket =
log file =
log to stderr = true
err to stderr = true
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 2000
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
[mon.a]
mon data = $folder/mon
[osd.0]
osd data = $folder/osd
osd objectstore = memstore
memstore device bytes = 1G
osd class dir = /usr/lib/$(uname -m)-linux-gnu/rados-classes
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:$port tcp_nodelay=1
rgw enable usage log = false
# A killed gateway is waited for by the next one whenever it tells the others what to forget.
rgw cache enabled = false
rgw thread pool size = 32
EOF
    ceph-authtool -C "$folder/keyring" --gen-key -n mon. --cap mon 'allow *' >/dev/null
    ceph-authtool "$folder/keyring" --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
    ceph-authtool "$folder/keyring" --gen-key -n client.rgw --cap mon 'allow rwx' --cap osd 'allow rwx'
    monmaptool --create --fsid "$fsid" --addv a "[v2:127.0.0.1:$monitor]" "$folder/monmap" >/dev/null
    mkdir -p "$folder/mon" "$folder/osd"
    ceph-mon --mkfs -i a --monmap "$folder/monmap" --keyring "$folder/keyring" >"$folder/mkfs.log" 2>&1
}

start_cluster() {
    run mon ceph-mon -f -i a
    wait_for 60 ceph --connect-timeout 2 mon stat
    # The OSD's key exists before its --mkfs, which reads it.
    ceph auth get-or-create osd.0 mon 'allow profile osd' osd 'allow *' -o "$folder/osd/keyring"
    local uuid
    uuid=$(cat /proc/sys/kernel/random/uuid)
    ceph osd new "$uuid" >/dev/null
    ceph-osd -i 0 --mkfs --osd-uuid "$uuid" --keyring "$folder/osd/keyring" >/dev/null 2>&1
    run osd ceph-osd -f -i 0 --keyring "$folder/osd/keyring"
    wait_for 60 sh -c "ceph osd stat | grep -q '1 up'"
}

start_gateway() {
    run rgw radosgw -f -n client.rgw
    wait_for 120 curl -s -o /dev/null "http://127.0.0.1:$port/"
}

stop() {
    for name in rgw osd mon; do
        [ -f "$folder/$name.pid" ] && kill -9 "$(cat "$folder/$name.pid")" 2>/dev/null || true
    done
}

case $1 in
start)
    configure
    start_cluster
    radosgw-admin user create --uid=tester --display-name=tester --access-key="${4:-tester}" --secret="${5:-secret}" >/dev/null
    start_gateway
    ;;
gateway) start_gateway ;;
stop) stop ;;
*) echo "usage: radosgw.sh start|gateway|stop FOLDER [PORT]" >&2; exit 2 ;;
esac
