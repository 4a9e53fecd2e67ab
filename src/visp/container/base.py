"""What visp asks of a container driver.

A driver makes containers; a container is one sandboxed process tree that serves one namespace and one action revision
in its life. Drivers stay naive: `guard.Guarded` wraps every container and makes it idempotent, bounded and dead-safe.

Order: `Driver.start` once, `reap` once after it, then `create` any number of times at once, `close` at the end. A
container's `destroy` may be called at any time after `create` returned, `pause` and `resume` alternate.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import TYPE_CHECKING, Protocol

import msgspec

from visp.entity.images import Wanted

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence


class Mount(msgspec.Struct, frozen=True):
    """A host path shown read-only inside. Both are absolute."""

    host: str
    inside: str


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """A program that stands by for a command and whose children can become it.

    `program` lies on the host; it is run in the place of the command's last word, with the same `mounts`. `imports` are
    modules that it loads besides: a driver may take a child of the same without them while it has none with them.
    """

    program: str
    argv: tuple[str, ...]
    mounts: tuple[Mount, ...]
    imports: tuple[str, ...] = ()


class ContainerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to start.

    `id` is unique in the life of the driver, `[a-z0-9-]{1,48}`. `argv` is the command inside. `env` is its
    whole environment, laid over the driver's own (PATH, HOME, LANG). `memory_mb` bounds the whole tree. `code_folder`
    is a host folder to be seen read-only at `/action`; None gives an empty folder of the container's own, into which
    `Container.add_code` can put a tree later. A driver that keeps templates may make the container from `template`; to
    others it means nothing.

    `root` is a host folder that is the root file system in place of what the driver shows of the host's. `image` names
    what a container engine runs: then `argv` is empty, for the image has its own. `scratch_bytes` is how much it may
    write below `/tmp`, and the size of a file, where that is not the driver's usual. `reserve_mb` is memory that it
    asks for besides and does not use: a limit on what is asked for leaves it out. `is_led_out` is for what may be given
    a network later, once it is known for whom it runs; anything else never has one. `stands`: the program waits for its
    first line in such a way that a driver may start copies of one that waits; `is_spare`: nobody needs it yet.
    """

    id: str
    argv: tuple[str, ...]
    env: dict[str, str]
    memory_mb: int
    mounts: tuple[Mount, ...] = ()
    code_folder: str | None = None
    template: Template | None = None
    root: str | None = None
    image: Wanted | None = None
    scratch_bytes: int | None = None
    reserve_mb: int = 0
    is_led_out: bool = False
    stands: bool = False
    is_spare: bool = False


class Pipes(msgspec.Struct, frozen=True):
    """How a local container is spoken to: descriptors on our side, all non-blocking, closed by `destroy`.

    JSON lines go to `stdin` and come back on `replies` (descriptor 3 inside); `stdout` and `stderr` are the logs.
    """

    stdin: int
    replies: int
    stdout: int
    stderr: int


class Address(msgspec.Struct, frozen=True):
    """How a container that speaks HTTP (`/init`, `/run`) is reached.

    `connect` makes a connection where the address is one of the container's own network; it raises `OSError`. `follow`
    has what it prints handed over, from its start and as it is taken: 0 or 1 for the stream, and bytes. `ended_late`:
    its connections may be gone a second or two before its end is known.
    """

    host: str
    port: int
    connect: Callable[[], Awaitable[socket.socket]] | None = None
    follow: Callable[[Callable[[int, bytes], None]], None] | None = None
    ended_late: bool = False


class Way(Enum):
    """How a container comes to its program: started there, a template's child, or a copy of one that waits."""

    STARTED = "started"
    FORKED = "forked"
    COPIED = "copied"


class Exit(msgspec.Struct, frozen=True):
    """How a container ended: exit status (negative: the signal), and whether the kernel killed it for its memory."""

    status: int
    is_out_of_memory: bool = False


class Container(Protocol):
    """One running container."""

    @property
    def id(self) -> str:
        """As in its spec."""
        ...

    @property
    def wire(self) -> Pipes | Address:
        """How it is spoken to."""
        ...

    @property
    def way(self) -> Way:
        """How it was made."""
        ...

    @property
    def exited(self) -> asyncio.Future[Exit]:
        """Done when the container's first process has ended, by itself or by `destroy`: its memory is free then.

        Never cancelled, never raises.
        """
        ...

    @property
    def doors(self) -> Sequence[socket.socket]:
        """They listen in the container's own network, at ports of its loopback address; closed by `destroy`.

        None where it has no network of its own.
        """
        ...

    @property
    def code_at(self) -> str:
        """Where its code folder is seen inside: `/action`, save where nothing is mounted."""
        ...

    async def add_code(self, folder: str) -> bool:
        """Makes the tree of `folder` visible at `code_at`; only for a container created without `code_folder`.

        False, and nothing done, when the tree is too large for that: then a container is made over it.
        """
        ...

    async def pause(self) -> None:
        """Stops every process of the container; it uses no CPU until `resume`."""
        ...

    async def resume(self) -> None:
        """Lets it go on where it was paused."""
        ...

    async def destroy(self) -> None:
        """Ends every process (those that were double-forked too) and removes folder, cgroup and descriptors.

        Within 1 s.
        """
        ...


class Maker(Protocol):
    """What most need of a driver: containers."""

    @property
    def name(self) -> str:
        """As in the setting."""
        ...

    @property
    def has_templates(self) -> bool:
        """Whether containers are made from templates, where their spec has one."""
        ...

    async def create(self, spec: ContainerSpec) -> Container:
        """A running container, its first process started; raises `StartFailed`."""
        ...


class Driver(Maker, Protocol):
    """A way to make containers.

    `has_doors`: they reach the platform by `DOOR_NAME`, and by no other way.
    """

    has_doors: bool

    async def start(self) -> None:
        """Checks that the driver works here.

        Raises `StartFailed` with a sentence that says what is missing and how to mend it.
        """
        ...

    async def reap(self) -> int:
        """Removes what a server that was killed left behind (processes, cgroups, mounts, folders).

        How many containers.
        """
        ...

    async def close(self) -> None:
        """Destroys every container that is left."""
        ...
