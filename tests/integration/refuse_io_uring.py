#!/usr/bin/env python3
"""Runs a program under a seccomp filter that refuses io_uring, as containers do:

    refuse_io_uring.py EPERM|ENOSYS PROGRAM ARGUMENT...
"""

import ctypes
import errno
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
SECCOMP_RET_ERRNO, SECCOMP_RET_ALLOW = 0x00050000, 0x7FFF0000
LOAD_WORD, JUMP_IF_GREATER_OR_EQUAL, RETURN = 0x20, 0x35, 0x06
# io_uring_setup, _enter, _register have the same numbers on all machines.
FIRST, BEHIND_LAST = 425, 428


def instruction(code, yes, no, value):
    return struct.pack("HBBI", code, yes, no, value)


def refuse(error):
    filters = b"".join(
        (
            instruction(LOAD_WORD, 0, 0, 0),  # the number of the system call
            instruction(JUMP_IF_GREATER_OR_EQUAL, 0, 2, FIRST),
            instruction(JUMP_IF_GREATER_OR_EQUAL, 1, 0, BEHIND_LAST),
            instruction(RETURN, 0, 0, SECCOMP_RET_ERRNO | error),
            instruction(RETURN, 0, 0, SECCOMP_RET_ALLOW),
        )
    )
    memory = ctypes.create_string_buffer(filters)
    program = ctypes.create_string_buffer(
        struct.pack("HxxxxxxP", len(filters) // 8, ctypes.addressof(memory))
    )
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    nothing = ctypes.c_ulong(0)
    if prctl(PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), nothing, nothing, nothing) or prctl(
        PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), program, nothing, nothing
    ):
        sys.exit(f"seccomp: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    refuse(getattr(errno, sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])
