#!/bin/sh
# Makes a Raspberry Pi with Raspberry Pi OS a node at its first start: installs the Debian package copepod_VERSION_ARCH.deb that lies
# beside this script on the boot partition, and moves copepod-bootstrap.conf from there to where the agent looks for it.
#
# Run by cloud-init (user-data beside this script in Copepod's sources) or by systemd (systemd.run= in cmdline.txt): docs/card.md.
# What it did is in firstrun.log, beside it. It always succeeds: the machine is to start in any case.
boot=$(dirname "$(readlink -f "$0")")
exec >>"$boot/firstrun.log" 2>&1

# Whatever happens, it is not run at each start.
[ ! -e "$boot/cmdline.txt" ] || sed -i 's/ systemd\.run=[^ ]*//; s/ systemd\.run_success_action=[^ ]*//; s/ systemd\.unit=[^ ]*//' "$boot/cmdline.txt"

package=$(ls "$boot"/copepod_*_"$(dpkg --print-architecture)".deb)
dpkg --install "$package" || {
	echo "the package of Copepod for $(dpkg --print-architecture) cannot be installed from $boot"
	exit 0
}
bootstrap=$boot/copepod-bootstrap.conf
if [ -s "$bootstrap" ] && install -m 600 "$bootstrap" /etc/copepod/bootstrap.conf && sync; then
	# It holds a token: overwritten, then removed.
	dd if=/dev/zero of="$bootstrap" bs=1 count="$(stat -c %s "$bootstrap")" conv=notrunc status=none
	sync
	rm "$bootstrap"
fi
echo "copepod is installed from $package"
exit 0
