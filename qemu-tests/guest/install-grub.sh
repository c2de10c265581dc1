# shim and GRUB, /boot beside an encrypted partition with LVM for root and swap, ifupdown: as Debian's installer does it where it is told
# "encrypted LVM". The initramfs is of initramfs-tools.
sfdisk --quiet /dev/vda <<END
label: gpt
label-id: 5A1F0E7C-33A4-4E5B-9B6E-0C1D2E3F4A50
start=1MiB, size=512MiB, type=U, uuid=5A1F0E7C-33A4-4E5B-9B6E-0C1D2E3F4A51, name=esp
size=512MiB, type=L, name=boot
type=L, name=root
END
udevadm settle
mkfs.vfat -F 32 -i 48414c46 /dev/vda1
mkfs.ext4 -q /dev/vda2
volume @ROOT_LUKS@ /dev/vda3 vda3_crypt
pvcreate --quiet /dev/mapper/vda3_crypt
vgcreate --quiet guest-vg /dev/mapper/vda3_crypt
lvcreate --quiet --yes --name swap_1 --size 128M guest-vg
lvcreate --quiet --yes --name root --extents 100%FREE guest-vg
udevadm settle
mkswap /dev/mapper/guest--vg-swap_1
mkfs.ext4 -q -U @ROOT_FS@ /dev/mapper/guest--vg-root
mount /dev/mapper/guest--vg-root /target
mkdir -p /target/boot
mount /dev/vda2 /target/boot
mkdir -p /target/boot/efi
mount -o umask=0077 /dev/vda1 /target/boot/efi
copy

echo 'vda3_crypt UUID=@ROOT_LUKS@ none luks,discard' >/target/etc/crypttab
cat >/target/etc/fstab <<END
/dev/mapper/guest--vg-root / ext4 errors=remount-ro 0 1
UUID=$(blkid -s UUID -o value /dev/vda2) /boot ext4 defaults 0 2
UUID=4841-4C46 /boot/efi vfat umask=0077 0 1
/dev/mapper/guest--vg-swap_1 none swap sw 0 0
END
rm /target/etc/systemd/network/10-ether.network /target/etc/systemd/system/multi-user.target.wants/systemd-networkd.service
cat >/target/etc/network/interfaces <<END
auto lo
iface lo inet loopback

allow-hotplug enp0s5
iface enp0s5 inet dhcp
END
# This machine has a serial console and no screen.
sed -i 's|^GRUB_CMDLINE_LINUX=.*|GRUB_CMDLINE_LINUX="@CMDLINE@"|; s|^#\(GRUB_TERMINAL=\).*|\1console|' /target/etc/default/grub
within update-initramfs -u -k "$kernel"
within grub-install --target=x86_64-efi --efi-directory=/boot/efi --bootloader-id=debian --no-nvram
within update-grub
