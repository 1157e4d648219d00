"""Modbus servers for the interop tests, on pymodbus: nobody here wrote the protocol side.

One process holds any number of servers (tcp, rtu on a pseudo terminal, rtu-over-tcp). Only the memory behind them is
ours, so that a test can set registers, delay answers, refuse ranges, fall silent and read what was written.

    modbus_peer.py '{"servers": [{"transport": "tcp", "units": {"1": {"holding": {"0": [1, 2]}}}}]}'

Prints one line {"ready": [{"port": ...} | {"path": ...}, ...]}, then obeys one JSON command a line from standard input
and answers each with one line. Ends with its standard input. Addresses without a value are refused (exception 2), units
without a table do not answer.

    {"op": "set", "server": 0, "unit": 1, "table": "holding", "address": 0, "values": [1]}
    {"op": "get", "server": 0, "unit": 1, "table": "holding", "address": 0, "count": 1}
    {"op": "behave", "server": 0, "delay": [0.1, 0.3], "share": 0.5, "silent": false,
                     "refuse": [{"table": "holding", "from": 10, "to": 20, "code": 4}]}
    {"op": "stats", "server": 0}       -> requests, delayed, write_requests, writes [[unit, table, address, [values]], ...]
"""

import asyncio
import json
import logging
import os
import random
import sys
import threading
import tty

from pymodbus import FramerType
from pymodbus.constants import ExcCodes
from pymodbus.exceptions import NoSuchIdException
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

# One megabyte of chatter would block a peer whose reader has gone.
logging.disable(logging.CRITICAL)

TABLE = {1: "coil", 5: "coil", 15: "coil", 2: "discrete", 4: "input", 3: "holding", 6: "holding", 16: "holding"}
WRITES = {5, 6, 15, 16}
KEPT_WRITES = 10_000


class Memory:
    """What stands behind one server; takes the place of pymodbus' own datastore."""

    def __init__(self, units, seed):
        self.units = {
            int(unit): {
                table: {int(start) + i: v for start, values in runs.items() for i, v in enumerate(values)}
                for table, runs in tables.items()
            }
            for unit, tables in units.items()
        }
        self.random = random.Random(seed)
        self.delay = (0.0, 0.0)
        self.share = 0.0
        self.silent = False
        self.refuse = []
        self.requests = 0
        self.delayed = 0
        self.write_requests = 0
        self.writes = []

    def device_ids(self):
        return list(self.units)

    def cells(self, unit, table):
        if self.silent or unit not in self.units:
            raise NoSuchIdException("no answer")
        return self.units[unit].setdefault(table, {})

    async def admit(self, unit, function, address, count):
        """Delay, silence and refusals; the cells otherwise."""
        self.requests += 1
        table = TABLE[function]
        if self.share and self.random.random() < self.share:
            self.delayed += 1
            await asyncio.sleep(self.random.uniform(*self.delay))
        cells = self.cells(unit, table)
        for rule in self.refuse:
            if rule["table"] == table and rule["from"] < address + count and address <= rule["to"]:
                return ExcCodes(rule["code"]), cells
        if any(address + i not in cells for i in range(count)):
            return ExcCodes.ILLEGAL_ADDRESS, cells
        return None, cells

    async def async_getValues(self, device_id, func_code, address, count=1):
        if func_code in WRITES:
            # pymodbus reads a written cell back for its answer: part of the write, neither delayed nor counted.
            cells = self.cells(device_id, TABLE[func_code])
            return [cells.get(address + i, 0) for i in range(count)]
        refusal, cells = await self.admit(device_id, func_code, address, count)
        if refusal:
            return refusal
        values = [cells[address + i] for i in range(count)]
        return [bool(v) for v in values] if TABLE[func_code] in ("coil", "discrete") else values

    async def async_setValues(self, device_id, func_code, address, values):
        self.write_requests += 1
        refusal, cells = await self.admit(device_id, func_code, address, len(values))
        if refusal:
            return refusal
        for i, value in enumerate(values):
            cells[address + i] = int(value)
        if len(self.writes) < KEPT_WRITES:
            self.writes.append([device_id, TABLE[func_code], address, [int(v) for v in values]])
        return None


def pty_line():
    """Two pseudo terminals wired back to back: the path for us and the path for the other side."""
    (near, near_slave), (far, far_slave) = os.openpty(), os.openpty()
    for slave in (near_slave, far_slave):
        tty.setraw(slave)  # and stays open here, so that a side that closes does not hang up the line

    def carry(source, sink):
        try:
            while data := os.read(source, 4096):
                os.write(sink, data)
        except OSError:
            pass

    for pair in ((near, far), (far, near)):
        threading.Thread(target=carry, args=pair, daemon=True).start()
    return os.ttyname(near_slave), os.ttyname(far_slave)


async def start(spec, seed):
    """Starts one server: its memory and where to reach it."""
    memory = Memory(spec.get("units", {}), seed)
    unused = SimDevice(id=0, simdata=[SimData(0, values=0, datatype=DataType.REGISTERS)])
    if spec["transport"] == "rtu":
        ours, theirs = pty_line()
        server = ModbusSerialServer(
            unused, framer=FramerType.RTU, port=ours, baudrate=spec.get("baud_rate", 19200),
            parity=spec.get("parity", "N"), ignore_missing_devices=True,
        )
        place = {"path": theirs}
    else:
        framer = FramerType.SOCKET if spec["transport"] == "tcp" else FramerType.RTU
        server = ModbusTcpServer(
            unused, framer=framer, address=("127.0.0.1", spec.get("port", 0)), ignore_missing_devices=True
        )
        place = None
    server.context = memory
    await server.serve_forever(background=True)
    if place is None:
        place = {"port": server.transport.sockets[0].getsockname()[1]}
    return memory, server, place


def obey(memories, command):
    """One command, its answer."""
    memory = memories[command["server"]]
    op = command["op"]
    if op == "set":
        cells = memory.units.setdefault(command["unit"], {}).setdefault(command["table"], {})
        cells.update({command["address"] + i: v for i, v in enumerate(command["values"])})
        return {"ok": True}
    if op == "get":
        cells = memory.units[command["unit"]][command["table"]]
        return {"values": [int(cells[command["address"] + i]) for i in range(command["count"])]}
    if op == "behave":
        memory.delay = tuple(command.get("delay", memory.delay))
        memory.share = command.get("share", memory.share)
        memory.silent = command.get("silent", memory.silent)
        memory.refuse = command.get("refuse", memory.refuse)
        return {"ok": True}
    if op == "stats":
        return {
            "requests": memory.requests,
            "delayed": memory.delayed,
            "write_requests": memory.write_requests,
            "writes": memory.writes,
        }
    raise ValueError(f"unknown op {op}")


async def main():
    spec = json.loads(sys.argv[1])
    started = [await start(server, index) for index, server in enumerate(spec["servers"])]
    memories = [memory for memory, _, _ in started]
    print(json.dumps({"ready": [place for _, _, place in started]}), flush=True)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        try:
            answer = obey(memories, json.loads(line))
        except Exception as error:  # the test shall see its own mistake, not a dead peer
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


asyncio.run(main())
