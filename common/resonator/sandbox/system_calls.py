"""System calls that computing has no use for, by name, and their numbers."""

from __future__ import annotations

import platform

# name=number on x86-64/number on AArch64 (asm/unistd.h)
_DENIED = """
# Sockets; reading and writing the one that it was started with needs none of these
socket=41/198 socketpair=53/199 connect=42/203 accept=43/202 accept4=288/242 bind=49/200 listen=50/201
sendmsg=46/211 sendmmsg=307/269 recvmsg=47/212 recvmmsg=299/243
# Processes and programs
fork=57/- vfork=58/- execve=59/221 execveat=322/281 setpgid=109/154 setsid=112/157
# Other processes, of the same user too
tkill=200/130 ptrace=101/117 process_vm_readv=310/270 process_vm_writev=311/271 kcmp=312/272
move_pages=279/239 migrate_pages=256/238 get_robust_list=274/100 setpriority=141/140 ioprio_set=251/30
# Cores and scheduling that were chosen for it
sched_setaffinity=203/122 sched_setscheduler=144/119 sched_setparam=142/118 sched_setattr=314/274
# Who it is
setuid=105/146 setgid=106/144 setreuid=113/145 setregid=114/143 setresuid=117/147 setresgid=119/149
setfsuid=122/151 setfsgid=123/152 setgroups=116/159 capset=126/91
# What Landlock leaves open, or did before its third version
truncate=76/45 chmod=90/- fchmod=91/52 fchmodat=268/53 chown=92/- fchown=93/55 lchown=94/- fchownat=260/54
utime=132/- utimes=235/- futimesat=261/- utimensat=280/88 setxattr=188/5 lsetxattr=189/6 fsetxattr=190/7
removexattr=197/14 lremovexattr=198/15 fremovexattr=199/16 mknod=133/- mknodat=259/33
name_to_handle_at=303/264 open_by_handle_at=304/265 fanotify_init=300/262 inotify_init=253/-
inotify_init1=294/26
# Memory that counts as nobody's
memfd_create=319/279 shmget=29/194 shmat=30/196 shmctl=31/195 semget=64/190 semctl=66/191 semop=65/193
semtimedop=220/192 msgget=68/186 msgsnd=69/189 msgrcv=70/188 msgctl=71/187 mq_open=240/180
mq_unlink=241/181
# File systems
mount=165/40 umount2=166/39 chroot=161/51 pivot_root=155/41 unshare=272/97 setns=308/268 swapon=167/224
swapoff=168/225 quotactl=179/60 acct=163/89
# The kernel itself
init_module=175/105 finit_module=313/273 delete_module=176/106 kexec_load=246/104 kexec_file_load=320/294
reboot=169/142 bpf=321/280 perf_event_open=298/241 userfaultfd=323/282 seccomp=317/277 personality=135/92
modify_ldt=154/- iopl=172/- ioperm=173/- keyctl=250/219 add_key=248/217 request_key=249/218 syslog=103/116
vhangup=153/58 lookup_dcookie=212/18 uselib=134/- settimeofday=164/170 clock_settime=227/112
adjtimex=159/171 clock_adjtime=305/266 sethostname=170/161 setdomainname=171/162
"""
_BY_ARGUMENT = """
kill=62/129 tgkill=234/131 rt_sigqueueinfo=129/138 rt_tgsigqueueinfo=297/240 prlimit64=302/261 clone=56/220
prctl=157/167 fcntl=72/25 ioctl=16/29 mmap=9/222
"""
"""Calls that pass for some arguments and not for others."""

UNKNOWN_FROM = 424
"""Later calls have one number everywhere, and every program does without them on a Linux before 5.1."""


def _numbers(table: str) -> dict[str, int]:
    column = {"x86_64": 0, "aarch64": 1}.get(platform.machine())
    if column is None:
        return {}
    lines = [line for line in table.splitlines() if not line.startswith("#")]
    rows = (entry.split("=") for line in lines for entry in line.split())
    numbers = ((name, both.split("/")[column]) for name, both in rows)
    return {name: int(number) for name, number in numbers if number != "-"}


DENIED = _numbers(_DENIED)
NUMBERS = {**DENIED, **_numbers(_BY_ARGUMENT)}
"""Of this machine's architecture; empty where it is another one."""
