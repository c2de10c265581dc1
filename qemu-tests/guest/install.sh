#!/bin/sh
# Installs what runs here on /dev/vda, as an installer does: by the programs of the distribution. It is PID 1 of a machine without firmware
# and network, whose root is the distribution's with all its packages. What follows this file lays out the disk and fills it.
set -eu
umask 022
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH LC_ALL=C.UTF-8
exec </dev/null >/dev/console 2>&1
trap 'code=$?; [ $code = 0 ] && echo "INSTALLED" || echo "NOT INSTALLED: $code"; sync; systemctl poweroff --force --force' EXIT

mount -o remount,rw /
mountpoint -q /proc || mount -t proc proc /proc
mountpoint -q /sys || mount -t sysfs sysfs /sys
mountpoint -q /run || mount -t tmpfs tmpfs /run
mkdir -p /run/lock /target
/usr/lib/systemd/systemd-udevd --daemon
udevadm trigger --action=add
udevadm settle

# UUID DEVICE NAME: an encrypted volume, opened. The passphrase is not what is tested, and Argon2 takes seconds under emulation.
volume() {
    printf %s '@PASSPHRASE@' | cryptsetup luksFormat --batch-mode --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
        --uuid "$1" --key-file - "$2"
    printf %s '@PASSPHRASE@' | cryptsetup open --key-file - "$2" "$3"
}
# The system, into /target and what is mounted there; all but what only this script is.
copy() {
    tar -C / --one-file-system --exclude=./target --exclude=./usr/lib/rig/install -cf - . | tar -C /target -xpf -
    for folder in dev proc sys run; do
        mkdir -p /target/$folder
        mount --rbind /$folder /target/$folder
    done
}
within() { chroot /target "$@"; }
# The first kernel of the system.
kernel=$(basename /boot/vmlinuz-*)
kernel=${kernel#vmlinuz-}
