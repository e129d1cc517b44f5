"""A node of `two_nodes`: a mount that remembers, and holds back, what a client of NFS would."""

import argparse
import errno
import fcntl
import itertools
import os
import stat
import struct
import time
from pathlib import Path

from node_locks import Lock, Locks
from node_mount import Mount

CACHE_DIR, KEEP_CACHE = 1 << 3, 1 << 1
MODE, UID, GID, SIZE, ATIME, MTIME, ATIME_NOW, MTIME_NOW = 1, 2, 4, 8, 16, 32, 128, 256
ATTRIBUTES = struct.Struct("<6Q10I")


class Node(Mount):
    """One node. What it asks is answered from the folder, what it remembers from here or from the kernel's caches."""

    def __init__(self, locks: Locks, folder: Path, at: Path, options: argparse.Namespace) -> None:
        super().__init__(at, options.locks != "local")
        self.locks, self.options, self.skew_ns = locks, options, round(options.skew_s * 1e9)
        self.numbers, self.handles = itertools.count(2), itertools.count(1)
        self.inodes = {1: os.open(folder, os.O_PATH)}  # each stays open, so that its number is nobody else's
        self.lookups = {1: 1}
        self.known = {os.stat(folder).st_ino: 1}
        self.files: dict[int, tuple[int, int]] = {}  # inode and file of a handle
        self.listings: dict[int, list[bytes]] = {}
        self.unsent: dict[int, list[tuple[int, int, bytes]]] = {}
        self.unsent_since: dict[int, float] = {}
        self.hidden: dict[int, tuple[int, str]] = {}  # .nfs… files: folder and name, by inode
        self.names: dict[int, dict[str, tuple[float, int | None]]] = {}  # what a folder's names are, and until when
        self.seen: dict[int, tuple[float, os.stat_result]] = {}  # attributes that this node believes, and until when

    def fresh(self, file: int) -> None:
        """Let this node ask for the attributes of a file again, and by them for its content."""
        inode = self.known.get(file)
        if inode is not None:
            self.seen.pop(inode, None)
            self.forget_attributes(inode)

    # Names and attributes.

    def valid(self, inode: int) -> tuple[int, int]:
        """How long the kernel may believe attributes: until they are as old as this node believes any."""
        left = max(0, self.seen[inode][0] - time.monotonic())
        return int(left), int(left % 1 * 1e9)

    def attributes(self, found: os.stat_result) -> bytes:
        times = [t + self.skew_ns for t in (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns)]
        return ATTRIBUTES.pack(
            *(found.st_ino, found.st_size, found.st_blocks, *(t // 10**9 for t in times)),
            *(*(t % 10**9 for t in times), found.st_mode, found.st_nlink, found.st_uid, found.st_gid, 0, 4096, 0),
        )

    def sent(self, inode: int) -> os.stat_result:
        """The attributes that the server has once this node has sent what it holds back."""
        self.send(inode)
        found = os.fstat(self.inodes[inode])
        if found.st_nlink == 0 and self.options.stale:
            raise self.stale(inode)
        self.seen[inode] = time.monotonic() + self.options.delay_s, found
        return found

    def path(self, inode: int) -> str:
        return f"/proc/self/fd/{self.inodes[inode]}"

    def entry(self, parent: int, name: str) -> bytes:
        file = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=self.inodes[parent])
        found = os.fstat(file)
        inode = self.known.get(found.st_ino)
        if inode is None:
            inode = self.known[found.st_ino] = next(self.numbers)
            self.inodes[inode], self.lookups[inode] = file, 0
        else:
            os.close(file)
        self.sent(inode)
        self.names.setdefault(parent, {})[name] = time.monotonic() + self.options.delay_s, inode
        return self.told(inode)

    def told(self, inode: int) -> bytes:
        """A file with its attributes. The kernel is to ask for the name each time, for it would remember it longer."""
        self.lookups[inode] += 1
        seconds, rest = self.valid(inode)
        return struct.pack("<QQQQII", inode, 0, 0, seconds, 0, rest) + self.attributes(self.seen[inode][1])

    def on_lookup(self, inode: int, body: bytes, number: int) -> bytes:
        name, names, now = name_in(body), self.names.setdefault(inode, {}), time.monotonic()
        until, known = names.get(name, (0.0, None))
        if until < now or (known is not None and known not in self.seen):
            try:
                return self.entry(inode, name)
            except FileNotFoundError:
                names[name] = now + self.options.delay_s, None
        elif known is not None:
            return self.told(known)
        return bytes(40 + ATTRIBUTES.size)

    def changed(self, inode: int) -> None:
        """This node has changed a folder. NFS then sees whether others have, too, and asks for all names again."""
        self.names.pop(inode, None)

    def stale(self, inode: int) -> OSError:
        """The error of a file that another node has removed; who then asks for its name gets the new one."""
        for names in self.names.values():
            for name in [name for name, (_, known) in names.items() if known == inode]:
                del names[name]
        return OSError(errno.ESTALE, "")

    def on_forget(self, inode: int, body: bytes, number: int) -> None:
        self.forget(inode, *struct.unpack_from("<Q", body))

    def on_batch_forget(self, inode: int, body: bytes, number: int) -> None:
        (count,) = struct.unpack_from("<I", body)
        for place in range(count):
            self.forget(*struct.unpack_from("<QQ", body, 8 + 16 * place))

    def forget(self, inode: int, count: int) -> None:
        self.lookups[inode] -= count
        if not self.lookups[inode]:
            self.send(inode)
            file = self.inodes.pop(inode)
            self.seen.pop(inode, None)
            self.names.pop(inode, None)
            del self.lookups[inode], self.known[os.fstat(file).st_ino]
            os.close(file)

    def on_getattr(self, inode: int, body: bytes, number: int) -> bytes:
        # The kernel also asks after each read, which NFS does not.
        if inode in self.unsent or inode not in self.seen or self.seen[inode][0] <= time.monotonic():
            self.sent(inode)
        return struct.pack("<QII", *self.valid(inode), 0) + self.attributes(self.seen[inode][1])

    def on_setattr(self, inode: int, body: bytes, number: int) -> bytes:
        values = struct.unpack_from("<IIQQQQQQIIIIIIII", body)
        what, size, times, mode, uid, gid = values[0], values[3], values[5:11], values[11], values[13], values[14]
        self.sent(inode)
        path = self.path(inode)
        if what & MODE:
            os.chmod(path, mode & 0o7777)
        if what & (UID | GID):
            os.chown(path, uid if what & UID else -1, gid if what & GID else -1)
        if what & SIZE:
            os.truncate(path, size)
        if what & (ATIME | MTIME):
            found, now = os.stat(path), time.time_ns()
            atime, mtime = (times[n] * 10**9 + times[n + 3] - self.skew_ns for n in (0, 1))
            atime = now if what & ATIME_NOW else atime if what & ATIME else found.st_atime_ns
            mtime = now if what & MTIME_NOW else mtime if what & MTIME else found.st_mtime_ns
            os.utime(path, ns=(atime, mtime))
        self.sent(inode)
        return self.on_getattr(inode, body, number)

    def on_readlink(self, inode: int, body: bytes, number: int) -> bytes:
        return os.fsencode(os.readlink("", dir_fd=self.inodes[inode]))

    def made(self, parent: int, name: str) -> bytes:
        self.changed(parent)
        uid, gid, _ = self.caller
        os.chown(name, uid, gid, dir_fd=self.inodes[parent], follow_symlinks=False)
        return self.entry(parent, name)

    def on_symlink(self, inode: int, body: bytes, number: int) -> bytes:
        name, target = body.split(b"\0")[:2]
        os.symlink(target, name, dir_fd=self.inodes[inode])
        return self.made(inode, os.fsdecode(name))

    def on_mknod(self, inode: int, body: bytes, number: int) -> bytes:
        mode, device = struct.unpack_from("<II", body)
        os.mknod(name_in(body[16:]), mode, device, dir_fd=self.inodes[inode])
        return self.made(inode, name_in(body[16:]))

    def on_mkdir(self, inode: int, body: bytes, number: int) -> bytes:
        (mode,) = struct.unpack_from("<I", body)
        os.mkdir(name_in(body[8:]), mode, dir_fd=self.inodes[inode])
        return self.made(inode, name_in(body[8:]))

    def on_link(self, inode: int, body: bytes, number: int) -> bytes:
        (old,) = struct.unpack_from("<Q", body)
        self.sent(old)
        self.changed(inode)
        os.link(self.path(old), name_in(body[8:]), dst_dir_fd=self.inodes[inode], follow_symlinks=True)
        return self.entry(inode, name_in(body[8:]))

    def on_unlink(self, inode: int, body: bytes, number: int) -> bytes:
        name = name_in(body)
        if not self.hide(inode, name):
            os.unlink(name, dir_fd=self.inodes[inode])
        self.changed(inode)
        return b""

    def on_rmdir(self, inode: int, body: bytes, number: int) -> bytes:
        os.rmdir(name_in(body), dir_fd=self.inodes[inode])
        self.changed(inode)
        return b""

    def on_rename(self, inode: int, body: bytes, number: int, at: int = 8) -> bytes:
        (to,) = struct.unpack_from("<Q", body)
        old, new = (os.fsdecode(name) for name in body[at:].split(b"\0")[:2])
        self.hide(to, new)
        os.rename(old, new, src_dir_fd=self.inodes[inode], dst_dir_fd=self.inodes[to])
        self.changed(inode)
        self.changed(to)
        return b""

    def on_rename2(self, inode: int, body: bytes, number: int) -> bytes:
        if struct.unpack_from("<I", body, 8)[0]:
            raise OSError(errno.EINVAL, "")
        return self.on_rename(inode, body, number, 16)

    def hide(self, parent: int, name: str) -> bool:
        """Whether the file is open on this node, which then keeps it under another name."""
        try:
            found = os.stat(name, dir_fd=self.inodes[parent], follow_symlinks=False)
        except FileNotFoundError:
            return False
        inode = self.known.get(found.st_ino)
        is_open = stat.S_ISREG(found.st_mode) and any(inode == opened for opened, _ in self.files.values())
        if is_open and inode is not None and inode not in self.hidden:
            hidden = f".nfs{found.st_ino:016x}{next(self.handles):08x}"
            os.rename(name, hidden, src_dir_fd=self.inodes[parent], dst_dir_fd=self.inodes[parent])
            self.hidden[inode] = os.dup(self.inodes[parent]), hidden
        return is_open

    # Files.

    def opened(self, inode: int, flags: int) -> bytes:
        # Who appends does so where this node believes the end to be.
        file = os.open(self.path(inode), flags & ~(os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW))
        handle = next(self.handles)
        self.files[handle] = inode, file
        return struct.pack("<QIi", handle, 0, 0)

    def on_open(self, inode: int, body: bytes, number: int) -> bytes:
        self.send(inode)
        found = os.fstat(self.inodes[inode])
        if found.st_nlink == 0:  # the kernel then asks for the name again
            raise self.stale(inode)
        self.fresh(found.st_ino)
        return self.opened(inode, *struct.unpack_from("<I", body))

    def on_create(self, inode: int, body: bytes, number: int) -> bytes:
        flags, mode = struct.unpack_from("<II", body)
        name = name_in(body[16:])
        try:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode & 0o7777, dir_fd=self.inodes[inode]))
            entry = self.made(inode, name)
        except FileExistsError:
            self.changed(inode)
            if flags & os.O_EXCL:
                raise
            entry = self.entry(inode, name)
        return entry + self.opened(*struct.unpack_from("<Q", entry), flags)

    def on_read(self, inode: int, body: bytes, number: int) -> bytes:
        handle, offset, size = struct.unpack_from("<QQI", body)
        self.sent(inode)
        return os.pread(self.files[handle][1], size, offset)

    def on_write(self, inode: int, body: bytes, number: int) -> bytes:
        handle, offset, size = struct.unpack_from("<QQI", body)
        self.unsent.setdefault(inode, []).append((self.files[handle][1], offset, body[40 : 40 + size]))
        self.unsent_since.setdefault(inode, time.monotonic())
        return struct.pack("<II", size, 0)

    def send(self, inode: int) -> None:
        """Let the server have what was written to a file on this node."""
        self.unsent_since.pop(inode, None)
        for file, offset, content in self.unsent.pop(inode, []):
            os.pwrite(file, content, offset)

    def send_old(self) -> None:
        """The same of what was written long enough ago."""
        since = time.monotonic() - self.options.delay_s
        for inode in [inode for inode, written in self.unsent_since.items() if written < since]:
            self.send(inode)

    def on_fsync(self, inode: int, body: bytes, number: int) -> bytes:
        self.send(inode)
        return b""

    def on_flush(self, inode: int, body: bytes, number: int) -> bytes:
        owner = struct.unpack_from("<QIIQ", body)[3]
        self.send(inode)
        self.locks.free(os.fstat(self.inodes[inode]).st_ino, self, (owner, False))
        return b""

    def on_release(self, inode: int, body: bytes, number: int) -> bytes:
        handle, _, how, owner = struct.unpack_from("<QIIQ", body)
        self.send(inode)
        if how & 2:
            self.locks.free(os.fstat(self.inodes[inode]).st_ino, self, (owner, True))
        os.close(self.files.pop(handle)[1])
        if inode in self.hidden and all(inode != opened for opened, _ in self.files.values()):
            folder, name = self.hidden.pop(inode)
            os.unlink(name, dir_fd=folder)
            self.fresh(os.fstat(folder).st_ino)
            os.close(folder)
        return b""

    def on_statfs(self, inode: int, body: bytes, number: int) -> bytes:
        found = os.statvfs(self.path(inode))
        sizes = (found.f_blocks, found.f_bfree, found.f_bavail, found.f_files, found.f_ffree)
        return struct.pack("<5Q4I24x", *sizes, found.f_bsize, found.f_namemax, found.f_frsize, 0)

    # Folders.

    def on_opendir(self, inode: int, body: bytes, number: int) -> bytes:
        handle = next(self.handles)
        self.listings[handle] = []
        return struct.pack("<QIi", handle, CACHE_DIR | KEEP_CACHE, 0)

    def on_readdir(self, inode: int, body: bytes, number: int) -> bytes:
        handle, offset, size = struct.unpack_from("<QQI", body)
        if offset == 0:
            with os.scandir(self.path(inode)) as entries:
                found = [(".", 0, stat.S_IFDIR), ("..", 0, stat.S_IFDIR)]
                found += [(one.name, one.inode(), one.stat(follow_symlinks=False).st_mode) for one in entries]
            self.listings[handle] = [
                struct.pack("<QQII", ino or 1, place, len(os.fsencode(name)), mode >> 12)
                + os.fsencode(name).ljust(-len(os.fsencode(name)) // 8 * -8, b"\0")
                for place, (name, ino, mode) in enumerate(found, 1)
            ]
        answer = b""
        for record in self.listings[handle][offset:]:
            if len(answer) + len(record) > size:
                break
            answer += record
        return answer

    def on_releasedir(self, inode: int, body: bytes, number: int) -> bytes:
        del self.listings[struct.unpack_from("<Q", body)[0]]
        return b""

    def on_fsyncdir(self, inode: int, body: bytes, number: int) -> bytes:
        return b""

    # Locks.

    def on_getlk(self, inode: int, body: bytes, number: int) -> bytes:
        file, wanted = self.wanted(inode, body)
        other = self.locks.conflict(file, wanted)
        if other is None:
            return struct.pack("<QQII", 0, 0, fcntl.F_UNLCK, 0)
        kind = fcntl.F_WRLCK if other.exclusive else fcntl.F_RDLCK
        return struct.pack("<QQII", 0, (1 << 63) - 1, kind, other.pid if other.node is self else 0)

    def on_setlk(self, inode: int, body: bytes, number: int, waits: bool = False) -> bytes | None:
        file, wanted = self.wanted(inode, body, number)
        if struct.unpack_from("<QQQQI", body)[4] == fcntl.F_UNLCK:
            self.send(inode)
            self.locks.free(file, self, wanted.owner)
        elif self.locks.take(file, wanted):
            self.fresh(file)  # taking a lock is a point from which on all is new, as in NFS
        elif waits:
            self.locks.waiting.append((file, wanted))
            return None
        else:
            raise OSError(errno.EAGAIN, "")
        return b""

    def on_setlkw(self, inode: int, body: bytes, number: int) -> bytes | None:
        return self.on_setlk(inode, body, number, waits=True)

    def wanted(self, inode: int, body: bytes, number: int = 0) -> tuple[int, Lock]:
        if self.options.locks == "none":
            raise OSError(errno.ENOSYS, "")
        _, owner, _, _, kind, pid, flags = struct.unpack_from("<QQQQIII", body)
        found = os.fstat(self.inodes[inode])
        return found.st_ino, Lock(self, (owner, bool(flags & 1)), kind == fcntl.F_WRLCK, pid, number)

    def on_interrupt(self, inode: int, body: bytes, number: int) -> None:
        (interrupted,) = struct.unpack_from("<Q", body)
        for one in [one for one in self.locks.waiting if one[1].node is self and one[1].waits == interrupted]:
            self.locks.waiting.remove(one)
            self.reply(interrupted, error=errno.EINTR)


def name_in(body: bytes) -> str:
    return os.fsdecode(body.split(b"\0", 1)[0])
