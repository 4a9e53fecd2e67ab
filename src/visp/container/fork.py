"""The driver by templates: a container is a child of a warm interpreter, in the very sandbox that bubblewrap makes.

What is seen inside, the namespaces, the filter and the limits are bubblewrap's own words, which the template reads too.
What has no template of its own is executed in a cell of any other; code that lies elsewhere goes by bubblewrap.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from visp.container import bwrap
from visp.container.base import Way
from visp.container.belongings import Unfit
from visp.container.blanks import Blanks
from visp.container.bwrap import BwrapDriver
from visp.container.local import LocalContainer, close_pipes
from visp.container.networks import Networks
from visp.container.template import ENCLOSURE, READY_S, Order, Plan, Template, limits_of
from visp.container.view import ENVIRONMENT, RUNTIMES, WORKING
from visp.container.zygote import CANNOT_ENTER, Cell
from visp.container.zygotes import Program, Zygotes
from visp.errors import StartFailed

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from visp.container import base
    from visp.container.base import ContainerSpec, Exit, Mount, Pipes
    from visp.container.cgroup import Group, Limits
    from visp.container.networks import CellNetwork
    from visp.container.template import Blank
    from visp.container.zygote import Binds, RLimits
    from visp.container.zygotes import Zygote
    from visp.settings import Settings

    Prove = Callable[[base.Template], Awaitable[bool]]

NAMESPACES = {
    "--unshare-user": 0x10000000,
    "--unshare-ipc": 0x08000000,
    "--unshare-pid": 0x20000000,
    "--unshare-net": 0x40000000,
    "--unshare-uts": 0x04000000,
    "--unshare-cgroup-try": 0x02000000,
}
MOUNTS = 0x00020000
"""bubblewrap makes this one unasked."""
VARIANT_S = 60.0
"""A template with imports of its own stays for so long after it was used."""
LAST_CAPABILITY = "/proc/sys/kernel/cap_last_cap"
PROGRAMS, CODE = "/visp", "/action"
"""Below the first a cell can show programs of its own."""


class OnTrial:
    """The driver, to whoever tries a template out."""

    has_templates = True

    def __init__(self, driver: ForkDriver) -> None:
        self.name = driver.name
        self.create = driver.create_on_trial


class ForkDriver(BwrapDriver):
    """Containers by templates, and by bubblewrap."""

    def __init__(self, settings: Settings, data_dir: Path) -> None:
        super().__init__(settings, data_dir, "fork")
        self._templates: dict[base.Template, tuple[Template, Blanks]] = {}
        self._common: base.Template | None = None
        """The one whose cells serve what has no template."""
        self._others: Sequence[base.Template] = ()
        self._prove: Prove | None = None
        self._sound: set[base.Template] = set()
        self._trials: dict[base.Template, asyncio.Task[None]] = {}
        """Of templates that were not started with the driver."""
        self._variants: dict[base.Template, float] = {}
        """Templates that load imports of their own, and when each was used; the one used last comes last."""
        self._binds: dict[tuple[Mount, ...], Binds] = {}
        """As many as there are kinds."""
        self._shows: tuple[str, ...] = ()
        """Folders of the host's that some kinds see."""
        self._leaving: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count()
        self._usual: Limits | None = None
        """As the last container was bounded: so are cells that stand ready, for the next is likely to be the same."""
        self._forks = True
        self.networks = Networks(settings.container.blanks_limit)
        self.zygotes = Zygotes(settings.container.zygotes, self._common_template, self._cell_of, self._prove_zygote)
        self._is_first = "--unshare-pid" in bwrap.NAMESPACES
        self._in_networks: dict[str, CellNetwork] = {}
        """By the container that is in it."""

    def __repr__(self) -> str:
        return f"<ForkDriver {[blanks for _, blanks in self._templates.values()]}>"

    def fingerprint(self) -> bytes:
        return super().fingerprint() + ENCLOSURE.read_bytes()

    @property
    def has_templates(self) -> bool:
        return self._forks

    async def give_up_templates(self) -> None:
        """From now on everything goes by bubblewrap."""
        self._forks, self.name = False, "bwrap"
        await self._end_templates()

    def offer(self, commands: Sequence[base.Template]) -> None:
        """What templates started from now on can become too: `program` is then the launcher's file itself.

        Folders of the host's that these see are kept for cells of theirs.
        """
        self._others = commands
        mounts = {mount for command in commands for mount in command.mounts if not _is_program(mount)}
        self._shows = tuple(sorted(mount.host for mount in mounts if mount.host == mount.inside))

    def warm(
        self,
        templates: Sequence[base.Template],
        prove: Prove | None = None,
    ) -> None:
        """Begins to start these, and to make the cells that are kept ready.

        Any other template is tried when it is first asked for: bubblewrap serves until `prove` says that it holds, and
        ever after where it does not. Without `prove` each is taken as it is.
        """
        self._common = next(iter(templates), None)
        self._prove = prove
        self._sound.update(templates)
        for template in templates:
            self._pool_of(template).fill()

    def template_pids(self) -> list[int]:
        """Those that run."""
        own = [template.pid for template, _ in self._templates.values() if template.pid is not None]
        return own + self.zygotes.pids()

    async def create(self, spec: ContainerSpec) -> LocalContainer:
        template = spec.template or self._common
        if template is None or not self._can_fork(spec) or not self._holds(template):
            return await super().create(spec)
        return await self._fork(spec, self._at_hand(template))

    async def create_on_trial(self, spec: ContainerSpec) -> LocalContainer:
        """By the template of `spec`, whatever is known of it."""
        assert spec.template is not None
        return await self._fork(spec, spec.template)

    def _holds(self, wanted: base.Template) -> bool:
        """Whether it was found to; who asks first begins a trial."""
        plain = msgspec.structs.replace(wanted, imports=()) if wanted.imports else wanted
        if self._prove is None or plain in self._sound:
            return True
        if plain not in self._trials:
            self._trials[plain] = asyncio.ensure_future(self._put_on_trial(plain, self._prove))
        return False

    async def _put_on_trial(self, template: base.Template, prove: Prove) -> None:
        if await prove(template):
            self._sound.add(template)

    async def _fork(self, spec: ContainerSpec, template: base.Template) -> LocalContainer:
        blank = await self._pool_of(template).take()
        if blank.network is not None and not spec.is_led_out:
            try:
                await self.networks.strip(blank.network)
            except BaseException:
                await asyncio.shield(self._drop(blank))
                raise
        try:
            self._usual = self._limits(spec)
            if blank.group is not None:
                blank.group.limit(self._usual)
            place = self._place(spec, blank.group, blank.uid)
            code, limits = self._in_cells(str(place.code)), limits_of(self.rlimits(place))
            wire, way = self._enter(blank, spec, template, code, limits)
        except OSError as error:
            await self._drop(blank)
            await asyncio.to_thread(self.remove_folder, spec.id)
            raise StartFailed(f"no container could be prepared: {error}") from None
        doors: Sequence[socket.socket] = ()
        if blank.network is not None:
            self._in_networks[spec.id], doors = blank.network, blank.network.doors
        return self._keep(
            LocalContainer(
                self, spec, blank.process, wire, blank.group, blank.uid, CODE, doors, is_first=self._is_first, way=way
            )
        )

    def _order(self, spec: ContainerSpec, template: base.Template, code: str, limits: RLimits) -> Order:
        is_loaded = spec.mounts == template.mounts or spec.argv in self._templates[template][0].becomes
        return Order(
            binds=(*(() if is_loaded else self._binds_of(spec.mounts)), (code, CODE)),
            argv=None if spec.argv == template.argv else spec.argv,
            env=_environment(spec.env),
            limits=limits,
        )

    def _enter(
        self, blank: Blank, spec: ContainerSpec, template: base.Template, code: str, limits: RLimits
    ) -> tuple[Pipes, Way]:
        """The program comes into the cell, in the best way that there is. Raises `OSError`."""
        if spec.stands:
            env = _environment(spec.env).items()
            program = Program(spec.argv, tuple(sorted(env)), self._binds_of(spec.mounts), limits)
            zygote = self.zygotes.at_hand(program, begins=not spec.is_spare)
            if zygote is not None and zygote.maker is blank.maker:
                with contextlib.suppress(BlockingIOError):
                    wire = blank.be_entered(zygote, code)
                    blank.process.exited.add_done_callback(lambda ended: self._look_at(ended.result(), program))
                    return wire, Way.COPIED
        order = self._order(spec, template, code, limits)
        return blank.obey(order), Way.FORKED if order.argv is None else Way.STARTED

    def _look_at(self, ended: Exit, program: Program) -> None:
        if ended.status == CANNOT_ENTER and self._forks:
            self.zygotes.give_up(program)

    def _cell_of(self, program: Program) -> Cell:
        return Cell(
            uid=int(bwrap.NAMESPACES[bwrap.NAMESPACES.index("--uid") + 1]),
            capabilities=int(Path(LAST_CAPABILITY).read_text()) + 1,
            filter=self._filter,
            binds=program.binds,
            limits=program.limits,
        )

    async def _prove_zygote(self, zygote: Zygote) -> None:
        """One copy is made whose input is at its end: a launcher ends then. Raises `Unfit` for one that does not.

        A cell that an earlier template has made is not for it, and says nothing of it.
        """
        assert self._common is not None
        blank = await self._pool_of(self._common).take()
        if blank.maker is not zygote.maker:
            await asyncio.shield(self._drop(blank))
            return
        name = self.host_name(f"proof-{next(self._numbers)}")
        try:
            folder = await asyncio.to_thread(self.cells.make, name)
            close_pipes(blank.be_entered(zygote, self._in_cells(str(folder))))
            async with asyncio.timeout(READY_S):
                ended = await asyncio.shield(blank.process.exited)
        finally:
            await asyncio.shield(self._drop(blank))
            await asyncio.to_thread(self.cells.remove, name)
        if ended.status != 0:
            raise Unfit(f"a copy ended with {ended.status}")

    def _common_template(self) -> Template:
        assert self._common is not None
        return self._templates[self._common][0]

    def _close_doors(self, container: LocalContainer) -> None:
        network = self._in_networks.pop(container.id, None)
        if network is None:
            super()._close_doors(container)
        elif container.exited.done():
            self.networks.give(network)
        else:
            self.networks.drop(network)

    def _can_fork(self, spec: ContainerSpec) -> bool:
        """A cell sees nothing of the host's but the folder of cells, and folders that were offered."""
        return (
            self._forks
            and spec.root is None
            and spec.scratch_bytes is None
            and (spec.code_folder is None or self._is_in_cells(spec.code_folder))
            and all(
                self._is_in_cells(mount.host) if _is_program(mount) else mount.host in self._shows
                for mount in spec.mounts
            )
        )

    def _binds_of(self, mounts: tuple[Mount, ...]) -> Binds:
        """How these are seen in a cell: programs as one folder, and folders of the host's."""
        found = self._binds.get(mounts)
        if found is None:
            files = {os.path.basename(mount.inside): mount.host for mount in mounts if _is_program(mount)}
            shows = (
                (f"shows/{self._shows.index(mount.host)}", mount.inside) for mount in mounts if not _is_program(mount)
            )
            found = self._binds[mounts] = ((self._in_cells(str(self.cells.show(files))), PROGRAMS), *shows)
        return found

    def _is_in_cells(self, path: str) -> bool:
        return os.path.normpath(path) == path and path.startswith(f"{self.cells.folder}/")

    def _in_cells(self, path: str) -> str:
        """Where cells find it before their code comes before it."""
        return f"cells/{path.removeprefix(f'{self.cells.folder}/')}"

    # ── templates and blank cells ───────────────────────────────────────────────────────────────────────────────

    def _pool_of(self, wanted: base.Template) -> Blanks:
        if wanted not in self._templates:
            template = self._template(wanted)
            limits = self.settings.container
            least = min(1, limits.blanks) if wanted.imports else limits.blanks
            blanks = Blanks(
                lambda: self._make_blank(wanted, template), self._drop, least=least, most=limits.blanks_limit
            )
            self._templates[wanted] = template, blanks
        return self._templates[wanted][1]

    def _at_hand(self, wanted: base.Template) -> base.Template:
        """The template with these imports if it is up; else, while that one starts, the one without."""
        if not wanted.imports:
            return wanted
        now_s = asyncio.get_running_loop().time()
        if wanted in self._variants:
            del self._variants[wanted]
            self._variants[wanted] = now_s
            if self._templates[wanted][1].has_ready:
                return wanted
        elif self._has_room_for_variant(now_s):
            self._variants[wanted] = now_s
            self._pool_of(wanted).fill()
        return msgspec.structs.replace(wanted, imports=())

    def _has_room_for_variant(self, now_s: float) -> bool:
        """Also makes it: of too many, the one that was not used for longest goes."""
        if len(self._variants) < self.settings.container.import_templates:
            return True
        if not self._variants:
            return False
        oldest, used_s = next(iter(self._variants.items()))
        if now_s - used_s < VARIANT_S:
            return False
        del self._variants[oldest]
        leaving = asyncio.ensure_future(self._end(*self._templates.pop(oldest)))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
        return True

    def _template(self, wanted: base.Template) -> Template:
        words = bwrap.NAMESPACES
        flags = (flag for word, flag in NAMESPACES.items() if word in words)
        plan = Plan(
            words=self.view(),
            namespaces=sum(flags, MOUNTS),
            uid=int(words[words.index("--uid") + 1]),
            hostname=words[words.index("--hostname") + 1],
            filter=self._filter.hex(),
            cells=str(self.cells.folder),
            shows=self._shows,
            argv=wanted.argv,
            env=_environment({}),
            first=wanted.program,
            imports=wanted.imports,
            others=tuple(_others(wanted, self._others)),
            mounts=tuple((mount.host, mount.inside) for mount in wanted.mounts),
            doors=self.ports,
        )
        enclosure = self.cells.install("enclosure.py", ENCLOSURE.read_bytes())
        python = wanted.argv[0].replace(RUNTIMES, str(self.runtimes))  # the host's name of it: it begins outside
        return Template(python, enclosure, plan)

    async def _make_blank(self, wanted: base.Template, template: Template) -> Blank:
        uid, group = self._uids.take(), None
        is_sound = self._holds(wanted)
        networks = self.networks if is_sound else None  # those of templates that are tried out have nothing
        try:
            if self.cgroups.hierarchies:
                name = self.host_name(f"blank-{next(self._numbers)}")
                group = await asyncio.to_thread(self.cgroups.make, name, self._usual)
            blank = await template.make(uid, group, networks)
        except (OSError, StartFailed) as error:
            await self._release(uid, group)
            raise StartFailed(f"driver fork: {error}") from None
        except asyncio.CancelledError:
            await asyncio.shield(self._release(uid, group))
            raise
        if blank.network is not None:
            blank.network.serves_once = not is_sound
            try:
                await self.networks.equip(blank.network)
            except BaseException:
                await asyncio.shield(self._drop(blank))
                raise
        return blank

    async def _drop(self, blank: Blank) -> None:
        blank.end()
        await blank.process.exited
        if blank.network is not None:
            self.networks.give(blank.network)
        await self._release(blank.uid, blank.group)

    async def _release(self, uid: int | None, group: Group | None) -> None:
        if group is not None:
            await asyncio.to_thread(group.remove)
        self._uids.give(uid)

    async def _end_templates(self) -> None:
        await self.zygotes.close()
        for template, blanks in self._templates.values():
            await self._end(template, blanks)
        self._templates.clear()
        self._variants.clear()
        await asyncio.gather(*self._leaving)

    async def _end(self, template: Template, blanks: Blanks) -> None:
        await blanks.close()
        await template.close()

    async def close(self) -> None:
        self._forks = False
        for trial in self._trials.values():
            trial.cancel()
        await asyncio.gather(*self._trials.values(), return_exceptions=True)
        await self._end_templates()
        await super().close()
        self.networks.close()


def _is_program(mount: Mount) -> bool:
    return os.path.dirname(mount.inside) == PROGRAMS


def _others(template: base.Template, commands: Sequence[base.Template]) -> Iterator[tuple[tuple[str, ...], int, str]]:
    """Those of the commands that start the template's interpreter in its way, with another launcher."""
    way = template.argv[:-1]
    for command in commands:
        if command.argv[: len(way)] == way and command.argv != template.argv:
            yield command.argv, len(way), command.program


def _environment(given: dict[str, str]) -> dict[str, str]:
    """As bubblewrap leaves it to a container."""
    return ENVIRONMENT | given | {"PWD": WORKING}
