"""The kernel's packet filter, through the nft command: one script on its standard input is one transaction."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from k3s.netfilter import diff, notices, text
from k3s.netfilter.interface import FilterError
from k3s.netfilter.ruleset import Ruleset, Table


class Kernel:
    """Implements `interface.PacketFilter`. `command` may enter a network namespace first (tests do)."""

    def __init__(self, command: tuple[str, ...] = ("nft",)) -> None:
        self._command = command

    async def observe(self, family: str, name: str) -> Table | None:
        """See PacketFilter.observe."""
        try:
            listing = await self._nft(f"list table {family} {name}\n")
        except FilterError as error:
            if "No such file or directory" in str(error):
                return None
            raise
        try:
            return text.parse_table(listing)
        except text.ParseError as error:
            raise FilterError(f"Cannot read table {family} {name}: {error}") from error

    async def apply(self, old: Ruleset | None, new: Ruleset) -> None:
        """See PacketFilter.apply."""
        script = diff.changes(old, new)
        if script:
            await self._nft(script)

    async def delete(self, family: str, name: str) -> None:
        """See PacketFilter.delete."""
        # "add" first: deleting a table that is not there is an error.
        await self._nft(f"add table {family} {name}\ndelete table {family} {name}\n")

    def subscribe(self, removed: Callable[[str, str], None]) -> Callable[[], None]:
        """See PacketFilter.subscribe. The notices are those of this process's own network namespace."""
        loop = asyncio.get_running_loop()
        channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, notices.NETLINK_NETFILTER)
        channel.bind((0, 1 << (notices.GROUP - 1)))

        def receive() -> None:
            try:
                data = channel.recv(notices.LONGEST)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: the kernel had to drop notices
                removed("", "")
                return
            for family, name in notices.deleted_tables(data):
                removed(family, name)

        def end() -> None:
            loop.remove_reader(channel)
            channel.close()

        loop.add_reader(channel, receive)
        return end

    async def _nft(self, script: str) -> str:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                "-y",
                "-f",
                "-",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except FileNotFoundError as error:
            raise FilterError(f"Cannot run {self._command[0]}: it is not installed; install nftables") from error
        except OSError as error:  # no process to be had now, for one: it is tried again like any other refusal
            raise FilterError(f"Cannot run {self._command[0]}: {error.strerror}") from error
        output, errors = await process.communicate(script.encode())
        if process.returncode is not None and process.returncode < 0:
            # Older versions crash on tables that newer ones have made (1.0.6 on those of 1.1.7).
            raise FilterError(
                f"Cannot change packet rules: {self._command[0]} crashed (signal {-process.returncode}); where a newer "
                "nft has made tables on this host, use that one, or remove them with it: nft delete table ip k3s"
            )
        if process.returncode:
            said = errors.decode(errors="replace").strip()
            raise FilterError(f"Cannot change packet rules: nft answers: {said[:2000]}")
        return output.decode()
