"""Reads float32 values from a Modbus TCP server with pymodbus and prints them as JSON.

    modbus_client.py PORT ADDRESS COUNT TIMES
"""

import asyncio
import json
import struct
import sys

from pymodbus.client import AsyncModbusTcpClient


async def main():
    port, address, count, times = map(int, sys.argv[1:])
    client = AsyncModbusTcpClient("127.0.0.1", port=port)
    assert await client.connect()
    polls = []
    for _ in range(times):
        answer = await client.read_holding_registers(address, count=2 * count, device_id=1)
        assert not answer.isError(), answer
        polls.append(struct.unpack(f">{count}f", struct.pack(f">{2 * count}H", *answer.registers)))
    client.close()
    print(json.dumps(polls))


asyncio.run(main())
