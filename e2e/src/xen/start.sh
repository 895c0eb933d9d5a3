#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR MIT
# The first program of a Xen host of the stories: a dom0 without an init system.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/xen-4.17/bin HOME=/root
exec </dev/hvc0 >/dev/hvc0 2>&1
mount -t proc proc /proc; mount -t sysfs sys /sys
mkdir -p /dev/pts /dev/shm; mount -t devpts -o gid=5,mode=620 devpts /dev/pts; mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run; mkdir -p /run/lock /run/xen /run/xenstored
mount -t tmpfs tmp /tmp; mount -t cgroup2 cg /sys/fs/cgroup
ln -sf /proc/self/fd /dev/fd; ln -sf /proc/self/fd/0 /dev/stdin; ln -sf /proc/self/fd/1 /dev/stdout; ln -sf /proc/self/fd/2 /dev/stderr
mount -t xenfs xenfs /proc/xen
HOSTN=$(sed -n 's/.*whimbrel.host=\([^ ]*\).*/\1/p' /proc/cmdline)
ADDR=$(sed -n 's/.*whimbrel.address=\([^ ]*\).*/\1/p' /proc/cmdline)
hostname $HOSTN
ip link set lo up
for m in xen-evtchn xen-gntdev xen-gntalloc xen-blkback xen-netback bridge loop tun; do modprobe $m; done
lan=; net=
for i in /sys/class/net/*; do case $(cat $i/address) in 52:54:00:00:00:*) lan=${i##*/};; 52:54:00:00:01:*) net=${i##*/};; esac; done
ip link add xenbr0 type bridge; ip link set $lan up; ip link set $lan mtu 61000; ip link set $lan master xenbr0; ip link set xenbr0 mtu 61000; ip addr add $ADDR/24 dev xenbr0; ip link set xenbr0 up
ip addr add 10.8.${ADDR##*.}.15/24 dev $net; ip link set $net up
printf '127.0.0.1 localhost\n10.77.0.1 xen1\n10.77.0.2 xen2\n' > /etc/hosts
/usr/lib/systemd/systemd-udevd --daemon
X=/usr/lib/xen-4.17/bin
xenstored --pid-file=/run/xenstored.pid || $X/xenstored --pid-file /run/xenstored.pid
$X/xen-init-dom0
xenconsoled --pid-file=/run/xenconsoled.pid || $X/xenconsoled --pid-file=/run/xenconsoled.pid
socat -t 600 TCP-LISTEN:1024,fork,reuseaddr SYSTEM:/files/whimbrel-agent &
# Told only when commands can come: the network card above it takes connections from the first moment.
until bash -c ': </dev/tcp/127.0.0.1/1024' 2>/dev/null; do sleep 0.1; done
echo READY
while :; do wait; sleep 1; done
