"""What the render process gives up before it opens a stranger's file.

A damaged file may take a renderer over, so the process keeps what it needs and no more: it may read
files and talk to its parent. It may not open a socket, write, rename or remove a file, signal or
trace a process, or leave its group. Linux on x86-64 and ARM64 holds it to that with a filter of
system calls, which pdftoppm and pdfinfo inherit; elsewhere only the resource limits hold.

It may still read whatever its user may read, and tell its parent.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
import sys
from collections.abc import Mapping

_KEPT = {
    *("PATH", "HOME", "TMPDIR", "TZ", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"),
    *("PYTHONHOME", "PYTHONUTF8", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"),
}
_KEPT_PREFIXES = ("LC_", "FONTCONFIG_", "XDG_")

_OPEN_FILES = 64

# Numbers of system calls: (x86-64, ARM64), None where the machine has no such call.
_DENIED: Mapping[str, tuple[int | None, int | None]] = {
    # the network, and other processes' files
    **{"socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "sendto": (44, 206)},
    **{"io_uring_setup": (425, 425), "pidfd_getfd": (438, 438)},
    # files
    **{"creat": (85, None), "openat2": (437, 437), "open_by_handle_at": (304, 265)},
    **{"truncate": (76, 45), "ftruncate": (77, 46), "fallocate": (285, 47)},
    **{"unlink": (87, None), "unlinkat": (263, 35), "rmdir": (84, None)},
    **{"mkdir": (83, None), "mkdirat": (258, 34), "mknod": (133, None), "mknodat": (259, 33)},
    **{"rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276)},
    **{"link": (86, None), "linkat": (265, 37), "symlink": (88, None), "symlinkat": (266, 36)},
    **{"chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452)},
    **{"chown": (92, None), "lchown": (94, None), "fchown": (93, 55), "fchownat": (260, 54)},
    **{"utime": (132, None), "utimes": (235, None), "utimensat": (280, 88)},
    **{"setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7)},
    **{"removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16)},
    # other processes
    **{"ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271)},
    **{"tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240)},
    **{"pidfd_open": (434, 434), "pidfd_send_signal": (424, 424)},
    **{"setsid": (112, 157), "setpgid": (109, 154), "setrlimit": (160, 164)},
    # the system
    **{"mount": (165, 40), "umount2": (166, 39), "unshare": (272, 97), "setns": (308, 268)},
    **{"bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282)},
    **{"add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219)},
}
_MACHINES = {"x86_64": (0, 0xC000003E, 317), "aarch64": (1, 0xC00000B7, 277)}
"""Which number of a pair holds, the kernel's name of the machine, and the number of seccomp(2)."""

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

# linux/seccomp.h, linux/bpf_common.h, linux/prctl.h
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | 1  # with EPERM
_LOAD, _AND, _IF_EQUAL, _IF_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_NUMBER_AT, _MACHINE_AT, _ARGUMENTS_AT = 0, 4, 16
_SET_NO_NEW_PRIVILEGES, _SET_FILTER, _ALL_THREADS = 38, 1, 1


def scrubbed(environment: Mapping[str, str]) -> dict[str, str]:
    """What of an environment a render process needs: no credentials, nobody's settings."""
    return {
        name: value
        for name, value in environment.items()
        if name in _KEPT or name.startswith(_KEPT_PREFIXES)
    }


def enter() -> bool:
    """Give up all that drawing does not need, for good; True if system calls are filtered too."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = _OPEN_FILES if most == resource.RLIM_INFINITY else min(_OPEN_FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    machine = _MACHINES.get(platform.machine()) if sys.platform == "linux" else None
    return machine is not None and sys.maxsize > 2**32 and _filter_system_calls(*machine)


def _filter_system_calls(column: int, machine: int, seccomp: int) -> bool:
    program = _program(column, machine)
    instructions = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: a short, and a pointer on its natural boundary.
    described = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(instructions))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        return False
    refused: int = libc.syscall(seccomp, _SET_FILTER, _ALL_THREADS, described)
    return refused == 0


def _program(column: int, machine: int) -> bytes:
    """The filter, as instructions of the kernel's packet filter: rules one after the other."""
    refuse = _instruction(_RETURN, _REFUSE)
    program = _instruction(_LOAD, _MACHINE_AT) + _instruction(_IF_EQUAL, machine, 1, 0) + refuse
    program += _instruction(_LOAD, _NUMBER_AT)
    if column == 0:  # the x32 calls of x86-64 have other numbers, and nobody needs them
        program += _instruction(_IF_LEAST, 0x40000000, 0, 1) + refuse
    for numbers in _DENIED.values():
        number = numbers[column]
        if number is not None:
            program += _instruction(_IF_EQUAL, number, 0, 1) + refuse
    # Allowed if an argument, masked, is as said: a file opened to read, a signal to the own group
    # (as `die_with` sends) or the own process (as abort does), the own limits asked for.
    for numbers, argument, mask, value in (
        ((2, None), 1, _WRITING, 0),  # open
        ((257, 56), 2, _WRITING, 0),  # openat
        ((62, 129), 0, 0xFFFFFFFF, 0),  # kill
        ((234, 131), 0, 0xFFFFFFFF, os.getpid()),  # tgkill
        ((302, 261), 0, 0xFFFFFFFF, 0),  # prlimit64
    ):
        number = numbers[column]
        if number is not None:
            program += _instruction(_IF_EQUAL, number, 0, 5)
            program += _instruction(_LOAD, _ARGUMENTS_AT + 8 * argument)
            program += _instruction(_AND, mask) + _instruction(_IF_EQUAL, value, 0, 1)
            program += _instruction(_RETURN, _ALLOW) + refuse
    return program + _instruction(_RETURN, _ALLOW)


def _instruction(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, operand)
