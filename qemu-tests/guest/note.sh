#!/bin/sh
# In the initramfs of some machines of the rig: what this boot is to meet, by the note on the second disk. So nothing that is
# measured differs between their boots. $1 says when: before the agent, when it has opened, before the gate. And a witness of what
# is open when somebody is asked for a passphrase: for the mapping $2.

# Never longer than until the unit's time-out.
until [ -b /dev/vdb ]; do sleep 0.1; done
data=luks-@DATA@

case $1:$(cat /dev/vdb) in
before:*take-the-name*)
    # Another mapping has the name that the second volume is to get.
    dmsetup create $data --table '0 8 error'
    ;;
opened:*second-disk-goes*)
    # As systemd-sysctl would, started again.
    echo 1 >/proc/sys/kernel/sysrq
    ;;
opened:*other-volume-asks*)
    systemctl --no-block start systemd-cryptsetup@other.service
    ;;
gate:*kill-the-gate*)
    kill -KILL $PPID
    ;;
gate:*something-stays*)
    # The kernel holds the volume; there is no process that could be ended.
    modprobe loop
    losetup --find /dev/mapper/$data && echo "RIG: a loop device is over $data" >/dev/console
    kill -KILL $PPID
    ;;
gate:*second-disk-goes*)
    while [ -e /sys/class/block/vdc ]; do sleep 0.1; done
    echo "RIG: the second disk is gone" >/dev/console
    ;;
gate:*mounted-in-root*)
    until [ "$mounted" ]; do
        sleep 0.1
        while read -r _ where _; do [ "$where" = /sysroot/var ] && mounted=yes; done </proc/mounts
    done
    echo "RIG: /sysroot/var is mounted" >/dev/console
    ;;
asks:*)
    uuids=$(echo $(cat /sys/class/block/dm-*/dm/uuid 2>/dev/null))
    echo "RIG: $2 asks over [$uuids], PCR 15 = $(cat /sys/class/tpm/tpm0/pcr-sha256/15)" >/dev/console
    ;;
esac
exit 0
