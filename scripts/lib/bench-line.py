"""A line for kernels without netem: two TUN devices, line0 here and line1 in the network namespace of another process.

Every packet from the one comes out of the other, later, or never: python3 bench-line.py MBIT MS LOSS PID, as line_up of
bench-line.sh has them. What TCP makes of that is the kernel's own. Ends when it is killed.
"""

import collections
import fcntl
import os
import random
import select
import struct
import subprocess
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
# As netem's own limit.
QUEUE = 1000


def tun(name):
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return device


class Way:
    """One direction: a queue at a rate, then a delay."""

    def __init__(self, source, target, rate, delay, loss, seed):
        self.source, self.target, self.rate, self.delay, self.loss = source, target, rate, delay, loss
        self.random = random.Random(seed)
        self.free = 0.0
        self.packets = collections.deque()

    def take(self):
        while True:
            try:
                packet = os.read(self.source, 65536)
            except (BlockingIOError, OSError):
                return
            now = time.monotonic()
            if self.random.random() < self.loss or len(self.packets) >= QUEUE:
                continue
            self.free = max(self.free, now) + len(packet) / self.rate
            self.packets.append((self.free + self.delay, packet))

    def give(self):
        now = time.monotonic()
        while self.packets and self.packets[0][0] <= now:
            try:
                os.write(self.target, self.packets.popleft()[1])
            except OSError:
                pass  # the other end is not up
        return self.packets[0][0] - now if self.packets else 3600.0


def main():
    rate, delay, loss = float(sys.argv[1]) * 1e6 / 8, float(sys.argv[2]) / 2000, float(sys.argv[3]) / 100
    far, near = tun("line0"), tun("line1")
    subprocess.run(["ip", "link", "set", "line1", "netns", sys.argv[4]], check=True)
    ways = {far: Way(far, near, rate, delay, loss, 1), near: Way(near, far, rate, delay, loss, 2)}
    while True:
        wait = min(way.give() for way in ways.values())
        for device in select.select(list(ways), [], [], max(wait, 0))[0]:
            ways[device].take()


main()
