"""Every function of a Modbus server, asked by pymodbus; prints what came back as one JSON object.

    modbus_functions.py PORT tcp|rtu-over-tcp

Expects unit 1 with coils 0..9, discrete inputs 0..9, holding registers 0..9 and input registers 0..9, and nothing else.
"""

import asyncio
import json
import sys

from pymodbus import FramerType
from pymodbus.client import AsyncModbusTcpClient


async def main():
    framer = FramerType.SOCKET if sys.argv[2] == "tcp" else FramerType.RTU
    client = AsyncModbusTcpClient("127.0.0.1", port=int(sys.argv[1]), framer=framer, timeout=5)
    assert await client.connect()
    unit = {"device_id": 1}

    def words(answer):
        return f"exception {answer.exception_code}" if answer.isError() else answer.registers

    def bits(answer, count):
        return f"exception {answer.exception_code}" if answer.isError() else answer.bits[:count]

    found = {
        "1": bits(await client.read_coils(0, count=10, **unit), 10),
        "2": bits(await client.read_discrete_inputs(3, count=5, **unit), 5),
        "3": words(await client.read_holding_registers(0, count=10, **unit)),
        "4": words(await client.read_input_registers(9, count=1, **unit)),
        "hole": words(await client.read_holding_registers(8, count=5, **unit)),
    }
    for answer in (
        await client.write_coil(1, True, **unit),
        await client.write_register(2, 0xBEEF, **unit),
        await client.write_coils(4, [True, False, True], **unit),
        await client.write_registers(5, [1, 2, 3], **unit),
    ):
        assert not answer.isError(), answer
    found["5, 15"] = bits(await client.read_coils(0, count=10, **unit), 10)
    found["6, 16"] = words(await client.read_holding_registers(0, count=10, **unit))
    found["write to a hole"] = words(await client.write_register(500, 1, **unit))
    client.close()
    print(json.dumps(found))


asyncio.run(main())
