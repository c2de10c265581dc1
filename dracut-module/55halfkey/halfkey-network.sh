#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR MIT
# NetworkManager runs in an initramfs only where something needs the network. Nothing else did, so the agent does: up has it
# started, with a connection by DHCP where neither command line nor image have one; down leaves the interfaces as they were found.
command -v getcmdline > /dev/null || . /lib/dracut-lib.sh

nm=/run/NetworkManager

up() {
    mkdir -p $nm/initrd $nm/conf.d
    # With what is in /etc/cmdline.d. Its words are split, and are no patterns.
    words=$(getcmdline)
    set -f
    for generator in /usr/libexec/nm-initrd-generator /usr/lib/nm-initrd-generator; do
        if [ -x "$generator" ]; then
            # shellcheck disable=SC2086 # a word each
            "$generator" -- $words rd.neednet=1 || exit 1
            break
        fi
    done
    set +f
    # Nothing is configured from DHCP but address, routes and name servers, and no hook sees what a server said besides.
    printf '[.config]\nenable=env:initrd\n[main]\nhostname-mode=none\n' > $nm/conf.d/zz-halfkey.conf
    # shellcheck disable=SC2154 # dracut-lib.sh has it
    rm -f "${hookdir:?}"/initqueue/settled/*-nm-run.sh
    : > $nm/initrd/halfkey
    : > $nm/initrd/neednet
}

# An address that stays would keep the running system's NetworkManager from what its owner configured there.
down() {
    [ -e $nm/initrd/halfkey ] || return 0
    # It failed, and is started again.
    [ "${SERVICE_RESULT-}" = success ] || return 0
    for interface in /sys/class/net/*; do
        state=$nm/devices/$(cat "$interface/ifindex")
        connection=$(sed -n 's/^connection-uuid=//p' "$state" 2> /dev/null)
        if [ -z "$connection" ] || is_found "$connection"; then
            continue
        elif grep -qsx nm-owned=true "$state"; then
            ip link delete dev "${interface##*/}"
        else
            ip address flush dev "${interface##*/}"
            ip link set dev "${interface##*/}" down
        fi
    done
    rm -rf $nm
}

# Whether a connection is what NetworkManager found and wrote down, as that of lo.
is_found() {
    for profile in $nm/system-connections/*; do
        grep -qsx "uuid=$1" "$profile" && grep -qsx nm-generated=true "$profile" && return 0
    done
    return 1
}

"$1"
