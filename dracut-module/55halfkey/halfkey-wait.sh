#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Sourced by the initqueue's loop: while the agent runs, its rounds do not count towards rd.retry, which would end in the
# emergency shell. The control group is there as long as the unit has a process. One that a disk holds in the kernel does not end,
# so this ends after the agent's deadline and what may follow it.
for _halfkey in /sys/fs/cgroup /sys/fs/cgroup/systemd; do
    [ -d "$_halfkey/system.slice/halfkey-unlock.service" ] || continue
    read -r _halfkey_now _halfkey < /proc/uptime
    _halfkey_now=${_halfkey_now%%.*}
    # As the agent reads it: 600, 600s, 0600.
    _halfkey=$(getarg rd.halfkey.timeout=)
    _halfkey=${_halfkey%s}
    while [ "${_halfkey#0}" != "$_halfkey" ]; do _halfkey=${_halfkey#0}; done
    case $_halfkey in
        '' | *[!0-9]* | ?????*) _halfkey=60 ;;
    esac
    # The first round that saw it.
    : "${_halfkey_until:=$((_halfkey_now + _halfkey + 240))}"
    # shellcheck disable=SC2034 # the loop's own variable
    [ "$_halfkey_now" -lt "$_halfkey_until" ] && main_loop=0
    break
done
unset _halfkey _halfkey_now
