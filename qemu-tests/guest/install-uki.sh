# systemd-boot, a unified kernel image by kernel-install and ukify, a subvolume of btrfs as the root, /var on a volume of its own.
sfdisk --quiet /dev/vda <<END
label: gpt
label-id: 5A1F0E7C-33A4-4E5B-9B6E-0C1D2E3F4A50
start=1MiB, size=512MiB, type=U, uuid=5A1F0E7C-33A4-4E5B-9B6E-0C1D2E3F4A51, name=esp
size=1792MiB, type=L, name=root
size=768MiB, type=L, name=var
END
udevadm settle
mkfs.vfat -F 32 -i 48414c46 -n ESP /dev/vda1
volume @ROOT_LUKS@ /dev/vda2 root_crypt
volume @DATA_LUKS@ /dev/vda3 var_crypt
mkfs.btrfs --quiet --uuid @ROOT_FS@ /dev/mapper/root_crypt
mkfs.ext4 -q -L var /dev/mapper/var_crypt
mount /dev/mapper/root_crypt /target
btrfs subvolume create /target/@
umount /target
mount -o subvol=@ /dev/mapper/root_crypt /target
mkdir -p /target/var /target/boot/efi
mount /dev/mapper/var_crypt /target/var
mount -o umask=0077 /dev/vda1 /target/boot/efi
copy

cat >/target/etc/crypttab <<END
root_crypt UUID=@ROOT_LUKS@ none luks
var_crypt UUID=@DATA_LUKS@ none luks
END
cat >/target/etc/fstab <<END
UUID=@ROOT_FS@ / btrfs defaults,subvol=@ 0 0
LABEL=var /var ext4 defaults 0 2
LABEL=ESP /boot/efi vfat umask=0077 0 1
END
echo 'hostonly="yes"' >/target/etc/dracut.conf.d/hostonly.conf
echo "root=UUID=@ROOT_FS@ rootflags=subvol=@ rd.luks.name=@ROOT_LUKS@=root_crypt @CMDLINE@" >/target/etc/kernel/cmdline
printf 'layout=uki\nuki_generator=ukify\n' >/target/etc/kernel/install.conf
within bootctl install --no-variables
within kernel-install add "$kernel" "/boot/vmlinuz-$kernel" "/boot/initrd.img-$kernel"
within bootctl list --no-pager || true
