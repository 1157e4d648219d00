"""What one writes without a gateway: asyncio pymodbus and paho, the same devices, topics and payloads.

    bench_asyncio.py BROKER_PORT grouped|per-point INTERVAL POINTS PORT...

Each device has a task that polls at a fixed rate; a poll is one read of all registers, decoded to float32 and published
with QoS 1. Runs until it is killed.
"""

import asyncio
import json
import logging
import struct
import sys
import time

import paho.mqtt.client as mqtt
from pymodbus.client import AsyncModbusTcpClient

logging.disable(logging.CRITICAL)


async def poll(number, port, interval, points, grouped, broker):
    client = AsyncModbusTcpClient("127.0.0.1", port=port)
    await client.connect()
    prefix = f"busbar/site/d{number}"
    due = time.monotonic()
    while True:
        answer = await client.read_holding_registers(0, count=2 * points, device_id=1)
        values = struct.unpack(f">{points}f", struct.pack(f">{2 * points}H", *answer.registers))
        ts = int(time.time() * 1000)
        if grouped:
            cells = {f"p{i}": {"value": v, "quality": "good"} for i, v in enumerate(values)}
            broker.publish(prefix, json.dumps({"ts": ts, "points": cells}), qos=1)
        else:
            for i, v in enumerate(values):
                broker.publish(f"{prefix}/p{i}", json.dumps({"ts": ts, "value": v, "quality": "good"}), qos=1)
        due += interval
        now = time.monotonic()
        if due < now:  # skip what is late, as the gateway does
            due += interval * int((now - due) / interval + 1)
        await asyncio.sleep(due - now)


async def main():
    port, mode, interval, points, *devices = sys.argv[1:]
    broker = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    broker.max_queued_messages_set(0)
    broker.max_inflight_messages_set(1000)
    broker.connect("127.0.0.1", int(port))
    broker.loop_start()
    tasks = [
        poll(i, int(p), float(interval), int(points), mode == "grouped", broker) for i, p in enumerate(devices)
    ]
    await asyncio.gather(*tasks)


asyncio.run(main())
