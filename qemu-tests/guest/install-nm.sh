# systemd-boot, a unified kernel image by kernel-install and ukify, ext4, NetworkManager in the system and so in the initramfs, which holds
# what this very machine needs and no more. The volume has the name that systemd gives one which is known by its UUID alone.
sfdisk --quiet /dev/vda <<END
label: gpt
label-id: 5A1F0E7C-33A4-4E5B-9B6E-0C1D2E3F4A50
start=1MiB, size=512MiB, type=U, uuid=5A1F0E7C-33A4-4E5B-9B6E-0C1D2E3F4A51, name=esp
type=L, name=root
END
udevadm settle
mkfs.vfat -F 32 -i 48414c46 -n ESP /dev/vda1
volume @ROOT_LUKS@ /dev/vda2 luks-@ROOT_LUKS@
mkfs.ext4 -q -U @ROOT_FS@ /dev/mapper/luks-@ROOT_LUKS@
mount /dev/mapper/luks-@ROOT_LUKS@ /target
mkdir -p /target/boot/efi
mount -o umask=0077 /dev/vda1 /target/boot/efi
copy

echo 'luks-@ROOT_LUKS@ UUID=@ROOT_LUKS@ none luks,discard' >/target/etc/crypttab
cat >/target/etc/fstab <<END
UUID=@ROOT_FS@ / ext4 defaults 0 1
LABEL=ESP /boot/efi vfat umask=0077 0 1
END
rm /target/etc/systemd/network/10-ether.network /target/etc/systemd/system/multi-user.target.wants/systemd-networkd.service
printf 'hostonly="yes"\nhostonly_mode="strict"\n' >/target/etc/dracut.conf.d/hostonly.conf
echo "root=UUID=@ROOT_FS@ rd.luks.uuid=@ROOT_LUKS@ @CMDLINE@" >/target/etc/kernel/cmdline
printf 'layout=uki\nuki_generator=ukify\n' >/target/etc/kernel/install.conf
within bootctl install --no-variables
within kernel-install add "$kernel" "/boot/vmlinuz-$kernel" "/boot/initrd.img-$kernel"
within bootctl list --no-pager || true
