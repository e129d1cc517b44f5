"""A FUSE mount, without a library: those for Python either know no locks, or have one cache for all files of a name."""

import ctypes
import errno
import os
import struct
from pathlib import Path
from typing import Any

NOSUID_NODEV = 6
LARGEST = 1 << 20  # of what is written at once
POSIX_LOCKS, ATOMIC_TRUNC, BIG_WRITES, FLOCK_LOCKS, AUTO_INVAL_DATA = 1 << 1, 1 << 3, 1 << 5, 1 << 10, 1 << 12
INVAL_INODE = 2
HEADER = struct.Struct("<IIQQIIII")
OPCODES = {
    **{1: "lookup", 2: "forget", 3: "getattr", 4: "setattr", 5: "readlink", 6: "symlink", 8: "mknod", 9: "mkdir"},
    **{10: "unlink", 11: "rmdir", 12: "rename", 13: "link", 14: "open", 15: "read", 16: "write", 17: "statfs"},
    **{18: "release", 20: "fsync", 25: "flush", 26: "init", 27: "opendir", 28: "readdir", 29: "releasedir"},
    **{30: "fsyncdir", 31: "getlk", 32: "setlk", 33: "setlkw", 35: "create", 36: "interrupt", 42: "batch_forget"},
    **{45: "rename2"},
}


class Mount:
    """Hands each request of the kernel to the method `on_…(inode, body, number)`, and its answer back.

    Its structures are those of linux/fuse.h. A method that answers None has answered, or will, by `reply`.
    """

    def __init__(self, at: Path, locks: bool) -> None:
        self._locks = locks  # else each mount keeps its own
        self.caller = 0, 0, 0
        """User, group and process of the request."""
        self.device = os.open("/dev/fuse", os.O_RDWR | os.O_NONBLOCK)
        said = f"fd={self.device},rootmode=40755,user_id=0,group_id=0,allow_other,default_permissions"
        arguments = [b"two_nodes", os.fsencode(at), b"fuse", NOSUID_NODEV, said.encode()]
        if ctypes.CDLL(None, use_errno=True).mount(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "mount")

    def serve(self) -> bool:
        """Answer one request; False once this is mounted no more."""
        try:
            request = os.read(self.device, LARGEST + 4096)
        except OSError as error:
            return error.errno in (errno.EAGAIN, errno.EINTR, errno.ENOENT)
        _, opcode, number, inode, *self.caller, _ = HEADER.unpack_from(request)
        ask: Any = getattr(self, f"on_{OPCODES.get(opcode, 'unknown')}", None)
        try:
            if ask is None:
                raise OSError(errno.ENOSYS, "")
            answer = ask(inode, request[HEADER.size :], number)
        except OSError as error:
            self.reply(number, error=error.errno or errno.EIO)
        else:
            if answer is not None:
                self.reply(number, answer)
        return True

    def reply(self, number: int, content: bytes = b"", error: int = 0) -> None:
        """Answer the request of this number."""
        self._tell(struct.pack("<IiQ", 16 + len(content), -error, number) + content)

    def forget_attributes(self, inode: int) -> None:
        """Let the kernel ask for the attributes of a file again, and by them for its content."""
        self._tell(struct.pack("<IiQQqq", 40, INVAL_INODE, 0, inode, -1, 0))

    def on_init(self, inode: int, body: bytes, number: int) -> bytes:
        """What both sides know."""
        wanted = ATOMIC_TRUNC | BIG_WRITES | AUTO_INVAL_DATA | (POSIX_LOCKS | FLOCK_LOCKS if self._locks else 0)
        _, _, readahead, offered = struct.unpack_from("<IIII", body)
        return struct.pack("<IIIIHHIIHHI28x", 7, 31, readahead, wanted & offered, 16, 12, LARGEST, 1, 0, 0, 0)

    def _tell(self, message: bytes) -> None:
        try:
            os.write(self.device, message)
        except OSError as failure:
            if failure.errno not in (errno.ENOENT, errno.ENODEV):  # the asker was killed, or all is over
                raise
