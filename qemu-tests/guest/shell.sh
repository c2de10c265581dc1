#!/bin/sh
# The rig's own line into the guest, apart from the console that people see: a base64 script in, its status and output out.
exec </dev/ttyS1 >/dev/ttyS1
stty raw -echo
echo READY
while IFS= read -r line; do
    printf %s "$line" | base64 -d >/run/rig.sh
    sh /run/rig.sh </dev/null >/run/rig.out 2>&1
    printf 'DONE %s %s\n' "$?" "$(base64 -w0 /run/rig.out)"
done
