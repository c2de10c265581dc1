#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Halfkey in the initramfs: the agent, the unit that runs it, the drop-ins that close the fence on every other way out, and
# the root gate. Needs a systemd initramfs. Nothing of this host goes in, so one image serves many machines.

# An image for the kernel that runs after a crash: it saves the memory, opens nothing by attestation, and must not power off.
# dracut's configuration, which asks for this module, reaches that image too. As dracut-ng fails (from 112 on) when a module that
# was asked for says no in check(), it says yes and adds nothing.
for_a_crash() {
    local module
    # Red Hat's and SUSE's. (earlykdump and fadump's are in images that boot the system.)
    for module in ${dracutmodules-} ${add_dracutmodules-} ${force_add_dracutmodules-}; do
        [[ $module == kdumpbase || $module == kdump ]] && return 0
    done
    # Debian's and Ubuntu's.
    [[ ${outfile-} == /var/lib/kdump/* ]]
}

# called by dracut
check() {
    [[ ${mount_needs-} ]] && return 1
    for_a_crash && return 255
    require_binaries "${HALFKEY_AGENT:-halfkey-agent}" cryptsetup || return 1
    # Only on request: the file that enroll writes into dracut.conf.d, or `dracut --add halfkey`.
    return 255
}

# called by dracut
depends() {
    local module
    for_a_crash && return 0
    echo systemd-initrd dracut-systemd crypt dm kernel-network-modules
    # A module of its own from dracut-ng 103 on.
    for module in "${dracutbasedir:?}"/modules.d/[0-9][0-9]systemd-cryptsetup; do
        [[ -d $module ]] && echo systemd-cryptsetup
    done
    network_module
}

# Which of dracut's modules brings the network up; two would fight for the interfaces. The one that the image has anyway, because
# of a module that sorts before this one or by the configuration, else the one that dracut's own "network" would take here.
network_module() {
    local module
    local -a known=(network-manager systemd-networkd)
    for module in "${known[@]}"; do
        if dracut_module_included "$module" \
            || [[ " ${dracutmodules-} ${add_dracutmodules-} ${force_add_dracutmodules-} " == *" $module "* ]]; then
            echo "$module"
            return 0
        fi
    done
    for module in "${known[@]}"; do
        if can_be_installed "$module"; then
            echo "$module"
            return 0
        fi
    done
    # Neither: dracut says that it misses this one.
    echo systemd-networkd
}

# Whether dracut could take a module of its own, were it asked for. The module's functions stay in the subshell.
can_be_installed() {
    local said=0
    [[ " ${omit_dracutmodules-} " != *" $1 "* ]] || return 1
    # That module looks for all that it installs only from 106 on.
    if [[ $1 == network-manager ]]; then
        [[ -x ${dracutsysrootdir-}/usr/libexec/nm-initrd-generator || -x ${dracutsysrootdir-}/usr/lib/nm-initrd-generator ]] || return 1
    fi
    (module_check "$1") > /dev/null 2>&1 || said=$?
    [[ $said == 0 || $said == 255 ]]
}

# called by dracut
installkernel() {
    for_a_crash && return 0
    # The image must find the TPM of the machine it boots on, which need not be this one, whatever bus it is on: one whose
    # driver is not there has a fence that nobody can close. But no machine has a TPM by the proxy, which is for programs that
    # are one, and Xen's front end is to a TPM 1.2. Network drivers are the business of dracut's own network modules.
    local device driver none='^tpm_vtpm_proxy$|^xen_tpmfront$'
    omit_drivers="${omit_drivers:+$omit_drivers|}$none" hostonly='' instmods '=drivers/char/tpm' dm_crypt virtio_net
    # Where its bus needs a driver as well, as SPI and I2C do: those of this host's TPMs. (Without a name instmods reads its input.)
    for device in "${dracutsysrootdir-}"/sys/class/tpm/tpm*/device; do
        for driver in $(drivers_on_the_way "$device"); do
            hostonly='' instmods "$driver"
        done
    done
}

# Names of the modules that drive a device and what it is connected to.
drivers_on_the_way() {
    local device
    device=$(readlink -f "$1") || return 0
    while [[ $device == */devices/* ]]; do
        [[ -e $device/driver/module ]] && basename "$(readlink -f "$device/driver/module")"
        device=${device%/*}
    done
    return 0
}

# A link by which a unit pulls in another: PID 1 takes it however the link is written, and nothing but the link has to be in the
# image yet. Modules that sort after this one bring units too.
pulled_in_by() {
    local folder=$initdir$systemdsystemunitdir/$1.$2
    mkdir -p "$folder"
    ln -sfn "../$3" "$folder/$3"
}

# Behind the fence goes what a unit runs that gives a root shell. Each has a folder of its own: PID 1 does not load a drop-in
# folder that is a link.
fence_shell() {
    local unit=$1 file
    local -a places=("${dracutbasedir:?}"/modules.d/[0-9][0-9]dracut-systemd/"$unit" "${dracutsysrootdir-}$systemdsystemunitdir/$unit")
    # dracut installs the one as the other.
    [[ $unit == rescue.service ]] && places+=("$dracutbasedir"/modules.d/[0-9][0-9]dracut-systemd/emergency.service)
    for file in "${places[@]}"; do
        if [[ -e $file ]]; then
            inst_simple "$moddir/fence-shell.conf" "$systemdsystemunitdir/$unit.d/zz-halfkey.conf"
            return 0
        fi
    done
    # Not every version has each of them. One that must be there, or is started by name, and is not fenced, is a way in.
    if [[ $unit != emergency.service && $unit != rescue.service ]] \
        && ! grep -qsrF "$unit" "$dracutbasedir"/modules.d/[0-9][0-9]dracut-systemd; then
        return 0
    fi
    # What install() returns is not looked at.
    dfatal "halfkey: expected a unit file $unit, found none: its shell could not be fenced"
    exit 1
}

# The gate waits for a root, which waits for systemd-repart where that makes it. Nothing here tells whether there will be one: the
# same definition lets a root grow that is there.
warn_of_repart() {
    local conf
    [[ -e $initdir$systemdsystemunitdir/systemd-repart.service ]] || return 0
    for conf in "$initdir"/{etc,usr/local/lib,usr/lib}/repart.d/*.conf; do
        if [[ -e $conf ]] && grep -qsE '^[[:blank:]]*Type[[:blank:]]*=[[:blank:]]*(root|usr)(-[a-z0-9-]+)?[[:blank:]]*$' "$conf"; then
            dwarn "halfkey: ${conf#"$initdir"} is for a root that systemd-repart can make in the initramfs"
            dwarn "hint: a machine on which it is not there yet does not boot: leave halfkey out of that image, and add it once the root is there"
        fi
    done
}

# called by dracut
install() {
    local unit
    for_a_crash && return 0

    inst_simple "$(find_binary "${HALFKEY_AGENT:-halfkey-agent}")" /usr/bin/halfkey-agent
    inst_multiple cryptsetup

    inst_simple "$moddir/halfkey-unlock.service" "$systemdsystemunitdir/halfkey-unlock.service"
    pulled_in_by sysinit.target wants halfkey-unlock.service
    # From dracut-ng 103 on nothing else does.
    pulled_in_by sysinit.target wants cryptsetup.target

    # The fence on every way out: each is a drop-in that runs the agent, so masking our unit changes nothing. Where our unit
    # must have ended first, it says so itself. (Of files that are the same, dracut makes one of several names.)
    for unit in emergency rescue dracut-emergency debug-shell; do
        fence_shell "$unit.service"
    done
    for unit in "${dracutsysrootdir-}$systemdsystemunitdir"/breakpoint-*.service; do
        fence_shell "${unit##*/}"
    done
    inst_simple "$moddir/before.conf" "$systemdsystemunitdir/systemd-cryptsetup@.service.d/zz-halfkey.conf"
    # The root gate: first looks before the root is used, and the last one, which is the last way out. A drop-in for a unit
    # that is not there changes nothing.
    inst_simple "$moddir/halfkey-gate.service" "$systemdsystemunitdir/halfkey-gate.service"
    pulled_in_by initrd-root-fs.target requires halfkey-gate.service
    for unit in dracut-pre-pivot initrd-parse-etc plymouth-switch-root systemd-repart ostree-prepare-root bootc-root-setup; do
        inst_simple "$moddir/before.conf" "$systemdsystemunitdir/$unit.service.d/zz-halfkey.conf"
    done
    inst_simple "$moddir/gate.conf" "$systemdsystemunitdir/initrd-switch-root.service.d/zz-halfkey.conf"
    inst_simple "$moddir/before-gate.conf" "$systemdsystemunitdir/mount.d/50-halfkey.conf"

    # Credentials from firmware and hypervisor are not measured: no service takes any.
    inst_simple "$moddir/no-credentials.conf" "$systemdsystemunitdir/service.d/50-halfkey.conf"
    if grep -qsr "^ImportCredential=" "${dracutsysrootdir-}$systemdsystemunitdir"; then
        echo 'ImportCredential=' >> "$initdir$systemdsystemunitdir/service.d/50-halfkey.conf"
    fi

    # Nothing mounts or resumes a system because of what it finds on a disk, or takes credentials from the network. A resume image would run before the fence is
    # extended, so hibernation is off in images with this module. A soft reboot would go into another root past the gate. Storage
    # target mode gives the machine's disks, and what is open of them, to the network.
    # Extensions laid over /sysroot are files of no volume that was opened, as the gate sees it: the running system merges them.
    mkdir -p "$initdir/etc/systemd/system-generators" "$initdir/etc/systemd/system"
    ln -sfn /dev/null "$initdir/etc/systemd/system-generators/systemd-gpt-auto-generator"
    ln -sfn /dev/null "$initdir/etc/systemd/system-generators/systemd-imds-generator"
    for unit in systemd-imds-import.service systemd-hibernate-resume@.service systemd-hibernate-resume.service systemd-soft-reboot.service \
        systemd-storagetm.service systemd-sysext-sysroot.service systemd-confext-sysroot.service; do
        [[ -e ${dracutsysrootdir-}$systemdsystemunitdir/$unit ]] && ln -sfn /dev/null "$initdir/etc/systemd/system/$unit"
    done

    # DHCP, unless the command line or the image configures the network: networkd's files of theirs sort first, NetworkManager
    # prefers theirs.
    if dracut_module_included network-manager; then
        inst_simple "$moddir/halfkey-network.sh" /usr/lib/halfkey/network.sh
        inst_simple "$moddir/halfkey-network.service" "$systemdsystemunitdir/halfkey-network.service"
        # dracut's own units, and those of NetworkManager from 1.54 on.
        for unit in nm-initrd NetworkManager-initrd; do
            inst_simple "$moddir/nm-leave.conf" "$systemdsystemunitdir/$unit.service.d/zz-halfkey.conf"
        done
        for unit in nm-wait-online-initrd NetworkManager-wait-online-initrd; do
            inst_simple "$moddir/nm-wait-online.conf" "$systemdsystemunitdir/$unit.service.d/zz-halfkey.conf"
        done
    else
        inst_simple "$moddir/zz-halfkey.network" "$systemdnetwork/zz-halfkey.network"
    fi

    # The initqueue must not give up while the agent still waits.
    inst_hook initqueue/settled 01 "$moddir/halfkey-wait.sh"
    warn_of_repart
}
