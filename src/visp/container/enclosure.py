"""How a template makes cells: processes that stand in a sandbox of their own before they know whose code they will run.

Runs under the interpreter of the template's kind. Standard library only, Python 3.8 and newer. Started as a program it
puts the root together that all its cells share and becomes the template; that one imports it and calls `serve`.

The plan is JSON: `{words, namespaces, uid, hostname, filter, cells, shows, argv, env, first, imports, others, mounts,
doors}`.
`words` are options of bubblewrap that say what is seen inside; `namespaces` are flags of clone; `filter` is
hexadecimal; `first` is the template's program, which the interpreter finds once under the name that its launcher has
later; `others` are commands `[argv, number of the launcher's word, its file]` that the interpreter can be used for too;
`doors` are ports of the loopback address that lead out.

With the words `doors PID PORT…` it only opens those in a sandbox that stands already, and sends them on descriptor 3.
"""

import array
import ctypes
import fcntl
import json
import os
import resource
import signal
import socket
import struct
import sys

CONTROL, PLAN = 3, 4
MESSAGE_BYTES = 64 * 1024
SPACE = socket.CMSG_SPACE(16 * 4)
"""For as many descriptors."""
REQUEST = "=IBBB"
HEIR, LIVES = "=q", -1
"""The number of a process that goes on in a cell, and what is said once it does."""
CLONE_ARGUMENTS = "11Q"
DESCRIPTORS_END = os.sysconf("SC_OPEN_MAX")
FIRST_FREE = 200
"""Descriptors that must survive are above it while 0-3 take their places."""
REPLIES = 3
IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)
"""By Python, and programs would go on with that."""
CANNOT_ENTER = 125
NO_ORDER = b'{"binds":[["nothing","/nowhere"]],"argv":["nothing"],"env":{"VISP_NOTHING":""},"limits":[]}'
BASE, OLD, NEW = "/tmp", "/old", "/new"
PROGRAMS = "/visp"
ALL = "/action"
"""Here lies what single cells see: `cells` and `shows`, until the code of one comes before it."""

READ_ONLY, NO_SUID, NO_DEVICES, NO_EXEC, BIND, RECURSIVE, PRIVATE = 1, 2, 4, 8, 0x1000, 0x4000, 0x40000
DETACH = 2
NEW_MOUNTS, NEW_CGROUP, NEW_USER, NEW_PROCESSES, NEW_NETWORK = (
    0x00020000,
    0x02000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
AS_SIBLING, INTO_CGROUP = 0x00008000, 0x200000000
DIE_WITH_PARENT, DUMPABLE, NAME, SECCOMP, DROP_BOUND, NO_NEW_PRIVILEGES, AMBIENT = 1, 4, 15, 22, 24, 38, 47
FILTER, CLEAR_ALL = 2, 4
UP_AND_RUNNING, SET_FLAGS, OWNER_OF, FREE_BIND = 0x41, 0x8914, 0xB701, 15
DOOR_BACKLOG = 16
RINGS_SETUP, CLONE3, MOUNT_SETATTR = 425, 435, 442
"""Numbers that all machines share."""
NO_RINGS = struct.pack(
    "HBBI" * 4, *(0x20, 0, 0, 0), *(0x15, 0, 1, RINGS_SETUP), *(0x06, 0, 0, 0x00050026), *(0x06, 0, 0, 0x7FFF0000)
)
"""A filter under which a program has none (38), as in cells: no copy could have rings of its own."""
INODE_BYTES = 1024
"""As `view.py` has it: a folder that can be written holds one file for so many bytes of its size."""
LAST_CAPABILITY = "/proc/sys/kernel/cap_last_cap"
NODES = ("null", "zero", "full", "random", "urandom", "tty")
COVERED = ("sys", "sysrq-trigger", "irq", "bus")
"""Below /proc, read-only: what bubblewrap covers too."""

libc = ctypes.PyDLL(None, use_errno=True)
"""Keeps the interpreter's lock: a clone returns twice."""


def check(result):
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def mount(source, target, kind=None, flags=0, data=None):
    follow([mounting(source, target, kind, flags, data)])


def restrict(target, attributes, everywhere=False):
    """Adds attributes to a mount, and to all below it."""
    follow([restricting(target, attributes, everywhere)])


def bind(source, target, attributes=READ_ONLY | NO_SUID | NO_DEVICES):
    follow(binding(source, target, attributes))


def mounting(source, target, kind=None, flags=0, data=None):
    words = [word.encode() if word is not None else None for word in (source, target, kind)]
    return libc.mount, *words, ctypes.c_ulong(flags), data.encode() if data is not None else None


def restricting(target, attributes, everywhere=False):
    changes = struct.pack("QQQQ", attributes, 0, 0, 0)
    at_here, recursive = -100, 0x8000 if everywhere else 0
    return libc.syscall, MOUNT_SETATTR, at_here, target.encode(), recursive, changes, ctypes.c_size_t(len(changes))


def binding(source, target, attributes=READ_ONLY | NO_SUID | NO_DEVICES):
    yield mounting(source, target, None, BIND | RECURSIVE)
    yield restricting(target, attributes, everywhere=True)


def prctl(*words):
    return libc.prctl, *words, *[0] * (5 - len(words))


def follow(steps):
    """Calls in order: each `(function, *arguments)`."""
    for function, *arguments in steps:
        check(function(*arguments))


def write(path, text):
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def call_myself(name):
    """As the host's operator sees it in a list of processes."""
    check(libc.prctl(NAME, name.encode(), 0, 0, 0))


def die_with_parent():
    check(libc.prctl(DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0))


# ── the root that all cells share ───────────────────────────────────────────────────────────────────────────────


def parse(words):
    """`(option, operands, size)` for each option; `--size` and `--perms` belong to the one that follows."""
    counts = {"--ro-bind": 2, "--ro-bind-try": 2, "--bind": 2, "--symlink": 2, "--proc": 1, "--dev": 1}
    counts.update({"--tmpfs": 1, "--dir": 1, "--size": 1, "--perms": 1})
    left, size = list(words), None
    while left:
        option = left.pop(0)
        operands = [left.pop(0) for _ in range(counts[option])]
        if option == "--size":
            size = operands[0]
        elif option != "--perms":
            yield option, operands, size
            size = None


def is_of_cell(option, operands):
    """What each cell mounts by itself: /proc and what covers parts of it, and what can be written."""
    return option in ("--proc", "--tmpfs") or operands[-1].startswith("/proc/")


def make_point(path, like):
    """Something to mount on: a folder, or a file where `like` is none."""
    if os.path.isdir(like):
        os.makedirs(path, 0o755, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o444))


def put_together(plan):
    """In namespaces of its own, with the root of the cells; capable of making cells.

    Where cells have networks its own is empty, and one to come back to from those in which they are born.
    """
    os.umask(0o022)
    flags = NEW_MOUNTS | plan["namespaces"] & NEW_NETWORK
    if os.geteuid() == 0:
        os.setgroups([])
    else:
        flags |= NEW_USER
    uid, gid = os.geteuid(), os.getegid()
    options = [resolved(option, operands) for option, operands, _ in parse(plan["words"])]
    first, own = (os.path.realpath(path) for path in (plan["first"], sys.argv[0]))
    parts = {"cells": os.path.realpath(plan["cells"])}
    parts.update((f"shows/{number}", os.path.realpath(path)) for number, path in enumerate(plan["shows"]))
    others = {argv[at]: os.path.realpath(host) for argv, at, host in plan["others"]}.items()
    mounts = [(os.path.realpath(host), inside) for host, inside in plan["mounts"]]
    check(libc.unshare(flags))
    if flags & NEW_USER:
        write("/proc/self/setgroups", "deny")
        write("/proc/self/uid_map", f"0 {uid} 1")
        write("/proc/self/gid_map", f"0 {gid} 1")
    mount(None, "/", None, RECURSIVE | PRIVATE)
    mount("tmpfs", BASE, "tmpfs", NO_SUID | NO_DEVICES, "mode=0755")
    os.mkdir(BASE + OLD)
    os.mkdir(BASE + NEW)
    check(libc.pivot_root(BASE.encode(), (BASE + OLD).encode()))
    os.chdir("/")
    mount("tmpfs", NEW, "tmpfs", NO_SUID | NO_DEVICES, "mode=0755")
    for option, operands in options:
        place(option, operands)
    for name, host in parts.items():
        make_point(f"{NEW}{ALL}/{name}", OLD + host)
        bind(OLD + host, f"{NEW}{ALL}/{name}")
    for path in plan["shows"]:
        make_point(NEW + path, "/")
    make_point(NEW + PROGRAMS, "/")
    for host, inside in mounts:
        make_point(NEW + inside, OLD + host)
        bind(OLD + host, NEW + inside)
    programs = [(plan["argv"][-1], first), (f"{PROGRAMS}/enclosure.py", own), *others]
    programs = [(inside, read(OLD + host)) for inside, host in programs]
    mount("tmpfs", NEW + PROGRAMS, "tmpfs", NO_SUID | NO_DEVICES, "mode=0755")  # until the template is up
    for inside, content in programs:
        with open(NEW + inside, "wb") as file:
            file.write(content)
    restrict(NEW + "/dev", READ_ONLY)
    restrict(NEW, READ_ONLY)
    check(libc.umount2(OLD.encode(), DETACH))
    os.chdir(NEW)
    check(libc.pivot_root(b".", b"."))
    check(libc.umount2(b".", DETACH))
    os.chdir("/tmp")


def resolved(option, operands):
    """Links are followed while they lead where they mean to."""
    return option, [os.path.realpath(operands[0]), operands[1]] if "bind" in option else operands


def read(path):
    with open(path, "rb") as file:
        return file.read()


def place(option, operands):
    """One option, as far as it is the same for all cells."""
    target = NEW + operands[-1]
    if option == "--symlink":
        os.symlink(operands[0], target)
    elif option == "--dev":
        make_devices(target)
    elif option == "--proc":
        make_point(target, "/")
        mount(OLD + "/proc", target, None, BIND | RECURSIVE)  # where none is seen the kernel mounts no new one
    elif option in ("--tmpfs", "--dir"):
        make_point(target, "/")
    elif not is_of_cell(option, operands) and (option != "--ro-bind-try" or os.path.exists(OLD + operands[0])):
        make_point(target, OLD + operands[0])
        bind(OLD + operands[0], target, NO_SUID | NO_DEVICES | (0 if option == "--bind" else READ_ONLY))


def make_devices(target):
    make_point(target, "/")
    mount("tmpfs", target, "tmpfs", NO_SUID | NO_DEVICES, "mode=0755")
    for name in NODES:
        make_point(f"{target}/{name}", "")
        bind(f"{OLD}/dev/{name}", f"{target}/{name}", NO_SUID)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink(f"/proc/self/fd/{number}", f"{target}/{name}")
    os.symlink("/proc/self/fd", f"{target}/fd")
    os.symlink("/proc/kcore", f"{target}/core")
    os.symlink("pts/ptmx", f"{target}/ptmx")
    os.mkdir(f"{target}/pts")
    os.mkdir(f"{target}/shm")


def main():
    """Becomes the template; what it is to load besides, `imports`, is its own affair."""
    plan = json.loads(read_plan())
    put_together(plan)
    die_with_parent()
    for descriptor in (CONTROL, PLAN):
        os.set_inheritable(descriptor, True)
    os.execve(plan["argv"][0], plan["argv"], plan["env"])


def read_plan():
    return os.pread(PLAN, os.fstat(PLAN).st_size, 0)


# ── cells ───────────────────────────────────────────────────────────────────────────────────────────────────────


def settle():
    """What a template that is up gives its cells: from now on the launcher lies where its program lay."""
    plan = json.loads(read_plan())
    os.close(PLAN)
    others = {tuple(argv): (argv[at:], read(argv[at])) for argv, at, _ in plan["others"]}
    check(libc.umount2(PROGRAMS.encode(), DETACH))
    die_with_parent()
    call_myself("visp-template")
    return Ready(plan, others)


class Ready:
    """The plan, worked out; `others` are the words and the source of each other launcher, by its whole command.

    A child shares the template's memory until it writes, and whatever Python looks at it writes to: each page of that
    costs a fault. So what a cell does is laid down here, as calls whose arguments are made: `(function, *arguments)`.
    """

    def __init__(self, plan, others):
        self.others = others
        self.flags = plan["namespaces"] & ~NEW_CGROUP
        self.late = [(libc.unshare, plan["namespaces"] & NEW_CGROUP)]  # its root is the group that was joined
        self.uid = plan["uid"]
        self.env = plan["env"]
        self.doors = plan["doors"]
        self.network = os.open("/proc/self/ns/net", os.O_RDONLY)
        self.name = os.path.basename(os.path.realpath("/proc/self/exe"))
        self.enters = [*enters(plan)]
        self.furnishes = [*furnishes(plan)]
        self.drops = [*drops(bytes.fromhex(plan["filter"]))]


def enters(plan):
    """Of the first process, and of all that it forks."""
    uid = plan["uid"]
    yield libc.setresgid, uid, uid, uid
    yield libc.setresuid, uid, uid, uid
    yield prctl(DIE_WITH_PARENT, signal.SIGKILL)
    yield prctl(NAME, ctypes.c_char_p(b"visp-cell"))
    yield libc.sethostname, plan["hostname"].encode(), len(plan["hostname"])
    yield (libc.setsid,)
    yield prctl(NO_NEW_PRIVILEGES, 1)
    yield prctl(AMBIENT, CLEAR_ALL)
    for number in range(int(read(LAST_CAPABILITY)) + 1):
        yield prctl(DROP_BOUND, number)


def furnishes(plan):
    """What a cell alone sees: its processes, terminals and what it may write; and no further namespaces of users."""
    for option, operands, size in parse(plan["words"]):
        target = operands[-1]
        if option == "--proc":
            if plan["namespaces"] & NEW_PROCESSES:
                yield mounting("proc", target, "proc", NO_SUID | NO_DEVICES | NO_EXEC)
            if plan["namespaces"] & NEW_USER:
                yield write, f"{target}/sys/user/max_user_namespaces", "0"
            for name in COVERED[1:]:
                if os.path.exists(f"{target}/{name}"):
                    yield from binding(f"{target}/{name}", f"{target}/{name}")
        elif option == "--dev":
            yield mounting("devpts", f"{target}/pts", "devpts", NO_SUID | NO_EXEC, "newinstance,ptmxmode=0666,mode=620")
        elif option == "--tmpfs":
            bounds = f",size={size},nr_inodes={int(size) // INODE_BYTES}" if size else ""
            yield mounting("tmpfs", target, "tmpfs", NO_SUID | NO_DEVICES, f"mode=0755{bounds}")
        elif is_of_cell(option, operands):
            yield from binding(operands[0], target)


def drops(program):
    """No capability, and the filter of system calls: nothing of this can be undone."""
    yield libc.capset, struct.pack("Ii", 0x20080522, 0), struct.pack("6I", *[0] * 6)
    yield filtering(program)


def filtering(program):
    code = ctypes.create_string_buffer(program, len(program))
    rules = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code)))
    rules.code = code  # lives as long
    return prctl(SECCOMP, FILTER, rules)


def serve(ready, rehearse):
    """Makes cells as they are asked for. Returns in a cell alone, once it was told what to be.

    Then None for what the template is for, or the command of the other launcher. `rehearse` is called in a cell before
    it counts as furnished.

    A request is four numbers: a uid of the host (0 where there is one only), whether a descriptor is the folder of a
    group to be born in, whether one is a network to be born in, whose doors are open, and whether what is asked for is
    no cell but a program beside the template (`stand`). The first descriptor is the cell's channel, then come these,
    and those that are left are files by which groups are joined. On the channel come `{pid}`, the host's number of the
    cell's first process, and when the cell is furnished and its first process has nothing left to give away `{}`, with
    the descriptor on which it is told its heir, and a network's where it was made for this cell; or `{error}`.
    """
    control = socket.socket(fileno=CONTROL)
    while True:
        request, descriptors = receive(control)
        if not request:
            os._exit(0)
        uid, *has, stands = struct.unpack(REQUEST, request)
        channel, *left = descriptors
        group, network = [left.pop(0) if each else None for each in has]
        try:
            is_cell = clone(ready, uid, group, network, channel, stands)
        except OSError as error:
            tell(channel, f"no cell can be made: {error.strerror}")
            is_cell = False
        if is_cell:
            control.close()
            if stands:
                stand(channel)
            return live(ready, rehearse, channel, left, network is None)
        for descriptor in descriptors:
            os.close(descriptor)


def receive(sock):
    """A message and its descriptors; an empty one when nothing more comes."""
    data, extra, _, _ = sock.recvmsg(MESSAGE_BYTES, SPACE)
    found = array.array("i")
    for _, _, content in extra:
        found.frombytes(content[: len(content) - len(content) % found.itemsize])
    return data, found


def tell(channel, error):
    """That something went wrong, to whoever listens still."""
    say(channel, json.dumps({"error": error}).encode())


def say(channel, message):
    """False when whoever asked is gone, or has given up."""
    try:
        os.write(channel, message)
    except OSError:
        return False
    return True


def clone(ready, uid, group, network, channel, stands):
    """True in the cell, whose parent is the template's own: it ends as a child of the server.

    A network is entered before, for none but its maker may do so once the cell has users of its own. What `stands` has
    mounts of its own, and nothing else.
    """
    flags = AS_SIBLING | (NEW_MOUNTS if stands else ready.flags) | (0 if group is None else INTO_CGROUP)
    if network is not None:
        check(libc.setns(network, NEW_NETWORK))
        flags &= ~NEW_NETWORK
    arguments = struct.pack(CLONE_ARGUMENTS, flags, 0, 0, 0, 0, 0, 0, 0, 0, 0, group or 0)
    reader, writer = os.pipe()
    pid = libc.syscall(CLONE3, arguments, len(arguments))
    if pid == 0:
        os.close(writer)
        if os.read(reader, 1) != b"1":
            os._exit(CANNOT_ENTER)
        for descriptor in (reader, ready.network, group, network):
            if descriptor is not None:
                os.close(descriptor)
        return True
    if network is not None:
        check(libc.setns(ready.network, NEW_NETWORK))
    try:
        check(pid)
        if not stands:
            admit(ready.uid, uid, pid)
        if say(channel, b'{"pid":%d}' % pid):
            os.write(writer, b"1")
    finally:
        os.close(reader)
        os.close(writer)
    return False


def admit(inside, outside, pid):
    """The only uid that there is in the namespaces of a new process."""
    write(f"/proc/{pid}/setgroups", "deny")
    write(f"/proc/{pid}/uid_map", f"{inside} {outside} 1")
    write(f"/proc/{pid}/gid_map", f"{inside} {outside} 1")


def stand(channel):
    """Becomes a program whose copies cells will be: it has the template's rights, and runs nobody's code.

    An order as in `obey`; 4 is the descriptor on which it will be asked.
    """
    message, descriptors = receive(socket.socket(fileno=channel))
    if not message:
        os._exit(0)
    order = json.loads(message)
    take_places(descriptors)
    die_with_parent()
    for number in IGNORED:
        signal.signal(number, signal.SIG_DFL)
    show(order["binds"])
    limit(order)
    follow([filtering(NO_RINGS)])
    os.execve(order["argv"][0], order["argv"], order["env"])


def take_places(descriptors):
    """From 0 on, and nothing else is open."""
    moved = [os.dup2(descriptor, FIRST_FREE + number) for number, descriptor in enumerate(descriptors)]
    for number, descriptor in enumerate(moved):
        os.dup2(descriptor, number)
    os.closerange(len(moved), DESCRIPTORS_END)


def live(ready, rehearse, channel, join, makes_network):
    """The first process of the cell: its child makes the sandbox around both; this one ends as that one ends.

    Or as the program ends that was named to it as its heir. It does little, for it is a copy of the template too.
    Neither is made by `os.fork`, which lets each module look after its locks and threads, of which there are none:
    nothing costs more pages. What else it would have done is for the caller of `serve`.
    """
    try:
        follow(ready.enters)
        for descriptor in join:
            os.write(descriptor, b"0")
        follow(ready.late)
        bare, is_bare = os.pipe()
        named, heir = os.pipe()
        pid = check(libc.fork())
        if pid == 0:
            os.close(is_bare)
            os.close(named)
            return obey(ready, rehearse, channel, bare, heir, makes_network)
        follow(ready.drops)
        check(libc.prctl(DUMPABLE, 0, 0, 0, 0))  # its memory, environment and files are not for those inside
    except OSError as error:
        tell(channel, f"no sandbox can be made: {error}")
        os._exit(CANNOT_ENTER)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.closerange(0, named)
    os.closerange(named + 1, DESCRIPTORS_END)
    told = b""
    while part := os.read(named, MESSAGE_BYTES):
        told += part
    os.close(named)
    if told:
        pid = heir_of(told)
    while True:
        ended, status = os.wait()
        if ended == pid:
            status = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
            os._exit(status if not told or status != CANNOT_ENTER else 1)


def heir_of(told):
    """The process that goes on; ends this one with `CANNOT_ENTER`, which no heir can, unless it was named and lives."""
    numbers = sorted(number for (number,) in struct.iter_unpack(HEIR, told))
    if len(numbers) != 2 or numbers[0] != LIVES or numbers[1] <= 0:
        os._exit(CANNOT_ENTER)
    return numbers[1]


def obey(ready, rehearse, channel, bare, heir, makes_network):
    """The second process furnishes the cell, waits for its order, and is ready for the code when this returns.

    An order is `{binds, argv, env, limits}` with the descriptors 0-3 are to be; `binds` are pairs of a path below `ALL`
    and where it is to be seen. `argv` is null for the launcher that the template is for.
    """
    try:
        follow(ready.furnishes)
        network = [*open_network(ready.doors)] if makes_network and ready.flags & NEW_NETWORK else []
    except OSError as error:
        tell(channel, f"no sandbox can be made: {error}")
        os._exit(CANNOT_ENTER)
    practise()
    rehearse()
    os.read(bare, 1)  # until the first process has closed its end
    if not give(channel, [heir, *network]):
        os._exit(CANNOT_ENTER)
    for descriptor in network:
        os.close(descriptor)
    message, descriptors = receive(socket.socket(fileno=channel))
    if not message:
        os._exit(0)
    order = json.loads(message)
    take_places([*descriptors, heir])
    heir = REPLIES + 1
    os.set_inheritable(heir, False)
    try:
        show(order["binds"])
        os.chdir("/tmp")
        limit(order)
        follow(ready.drops)
        check(libc.prctl(DUMPABLE, 1, 0, 0, 0))
        command = None if order["argv"] is None else tuple(order["argv"])
        if command is not None and command not in ready.others:
            bequeath(heir, order)
        os.close(heir)
        call_myself(ready.name)
    except OSError as error:
        os.write(2, f"the sandbox cannot be entered: {error}\n".encode())
        os._exit(CANNOT_ENTER)
    for name, value in order["env"].items():
        if ready.env.get(name) != value:
            os.environ[name] = value
    return command


def practise():
    """What obeying an order does, as far as nothing comes of it: the pages that it writes to are its own by then."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.sendmsg([NO_ORDER], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [ours.fileno()]))])
        message, descriptors = receive(theirs)
    order = json.loads(message)
    for descriptor in descriptors:
        os.dup2(descriptor, FIRST_FREE)
        os.close(descriptor)
        os.close(FIRST_FREE)
    os.closerange(DESCRIPTORS_END, DESCRIPTORS_END)
    try:
        show(order["binds"])
    except OSError:
        pass  # there is nothing to show
    resource.setrlimit(resource.RLIMIT_CORE, resource.getrlimit(resource.RLIMIT_CORE))
    for name, value in order["env"].items():
        os.environ[name] = value
        del os.environ[name]


def bequeath(heir, order):
    """A program that no template has loaded goes on in this process's place, as a child that the first one adopts.

    `execve` would first let go of all the memory that this process shares with the template.
    """
    pid = os.posix_spawn(order["argv"][0], order["argv"], order["env"], setsigdef=IGNORED)
    os.write(heir, struct.pack(HEIR, pid) + struct.pack(HEIR, LIVES))
    os._exit(0)


def limit(order):
    for number, value in order["limits"]:
        resource.setrlimit(number, (value, value))


def open_network(ports):
    """Descriptors of the network that this process is in: what enters it, what counts in it, and its doors."""
    yield os.open("/proc/self/ns/net", os.O_RDONLY)
    yield os.open("/proc/self/net/dev", os.O_RDONLY)
    raise_loopback()
    yield from open_doors(ports)


def raise_loopback():
    """The loopback device of a network that nobody else sets up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SET_FLAGS, struct.pack("16sh14x", b"lo", UP_AND_RUNNING))


def open_doors(ports):
    """
    Sockets that listen at the loopback address of the network that this process is in.

    Also before there is one: bubblewrap ends where somebody else has raised the device that it comes to raise.
    """
    doors = []
    for port in ports:
        door = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        door.setsockopt(socket.SOL_IP, FREE_BIND, 1)
        door.bind(("127.0.0.1", port))
        door.listen(DOOR_BACKLOG)
        doors.append(door.detach())
    return doors


def give(channel, descriptors):
    """Hands them over; false when whoever asked is gone, or has given up."""
    rights = array.array("i", descriptors)
    try:
        with socket.socket(fileno=os.dup(channel)) as sock:
            sock.sendmsg([b"{}"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    except OSError:
        return False
    return True


def open_elsewhere(pid, ports):
    """The doors of a sandbox that stands: one whose network namespace is that of process `pid`, and not the host's."""
    try:
        network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        is_own = os.fstat(network).st_ino != os.stat("/proc/self/ns/net").st_ino
        if is_own and os.geteuid() != 0:
            owner = check(libc.ioctl(network, OWNER_OF))
            check(libc.setns(owner, NEW_USER))
        if is_own:
            check(libc.setns(network, NEW_NETWORK))
            give(CONTROL, open_doors(ports))
    except OSError:
        pass  # it has ended
    sys.exit()


def show(binds):
    """What lies below the folder of all where it is to be seen; the last, the code, comes in front of that folder."""
    for source, target in binds:
        mount(f"{ALL}/{source}", target, None, BIND)  # what is copied is read-only


if __name__ == "__main__":
    if sys.argv[1:2] == ["doors"]:
        pid, *ports = map(int, sys.argv[2:])
        open_elsewhere(pid, ports)
    main()
