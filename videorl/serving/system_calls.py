"""What a process may no longer ask of the kernel: a seccomp filter, written out.

Landlock forbids files and TCP. This forbids what it does not know: every other socket (UDP, Unix,
netlink), programs and processes of its own, signals to others, and the rarely used calls through
which kernels are attacked. A forbidden call fails with EPERM, so that a decoder that tries one
reports an error. Threads stay allowed.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from functools import cache

_SET_SECCOMP, _FILTER = 22, 2
"""Of prctl."""
_LOAD, _EQUAL, _AT_LEAST, _ANY_OF, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
"""Instructions of classic BPF: load a word; jump if equal, not below, or any bit is set; return."""
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
"""Where `struct seccomp_data` has them; the argument's lower half, as these are little-endian."""
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_CLONE_THREAD = 0x00010000
_X32 = 0x40000000
_CLONE3 = 435
"""Has its flags where a filter cannot see them: called missing, so that `clone` is used."""

_FORBIDDEN = {
    "x86_64": {
        "sockets": (41, 42, 43, 44, 46, 49, 50, 53, 288, 307),
        "programs and processes": (57, 58, 59, 322),
        "other processes": (62, 101, 129, 200, 234, 297, 310, 311, 312),
        "memory that outlives it": (29, 64, 68, 240, 319),
        "limits of time": (38, 222),
        "mounts and namespaces": (155, 161, 165, 166, 272, 303, 304, 308),
        "keys, probes, programs of the kernel": (248, 249, 250, 298, 321, 323),
    },
    "aarch64": {
        "sockets": (198, 199, 200, 201, 202, 203, 206, 211, 242, 269),
        "programs and processes": (221, 281),
        "other processes": (117, 129, 130, 131, 138, 240, 270, 271, 272),
        "memory that outlives it": (180, 186, 190, 194, 279),
        "limits of time": (103, 107),
        "mounts and namespaces": (39, 40, 41, 51, 97, 264, 265, 268),
        "keys, probes, programs of the kernel": (217, 218, 219, 241, 280, 282),
    },
}
_SINCE_424 = (424, 425, 426, 427, 428, 429, 430, 431, 432, 433, 434, 438, 442, 447)
"""Same numbers everywhere: pidfd, io_uring, new mounts, secret memory."""
_MACHINES = {"x86_64": (0xC000003E, 56), "aarch64": (0xC00000B7, 220)}
"""Machine -> its AUDIT_ARCH, and its number of `clone`."""


_LIBC = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    """What the kernel takes."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def can_forbid() -> bool:
    """Tell whether the calls of this machine are known."""
    return platform.machine() in _MACHINES


def forbid() -> None:
    """Forbid the calls to this process for ever; it must have given up new privileges.

    Raises:
        OSError: The kernel refuses.
    """
    code = filter_of(platform.machine())
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.addressof(buffer))
    if _LIBC.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {errno.errorcode.get(number, number)}")


@cache
def filter_of(machine: str) -> bytes:
    """Return the filter: architecture, the other ABI, `clone`, then number by number."""
    architecture, clone = _MACHINES[machine]
    numbers = sorted({*sum(_FORBIDDEN[machine].values(), ()), *_SINCE_424})
    denied = _ERRNO | errno.EPERM
    code = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_EQUAL, architecture, 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER),
        _step(_AT_LEAST, _X32, 0, 1),
        _step(_RETURN, denied),
        _step(_EQUAL, _CLONE3, 0, 1),
        _step(_RETURN, _ERRNO | errno.ENOSYS),
        _step(_EQUAL, clone, 0, 4),
        _step(_LOAD, _FIRST_ARGUMENT),
        _step(_ANY_OF, _CLONE_THREAD, 1, 0),
        _step(_RETURN, denied),
        _step(_RETURN, _ALLOW),
    ]
    for number in numbers:
        code += [_step(_EQUAL, number, 0, 1), _step(_RETURN, denied)]
    return b"".join([*code, _step(_RETURN, _ALLOW)])


def _step(instruction: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", instruction, if_true, if_false, operand)
