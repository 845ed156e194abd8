"""A bounded load generator, to run as a process of its own: POSTs over kept-alive connections.

python -m benchmarks.load PORT CONNECTIONS SECONDS prints {"seconds": s, "answers": n, "ms": [...]},
the times of all answers in milliseconds. Loopback only; it ends by itself.
"""

import asyncio
import json
import sys
import time

BODY = json.dumps({"parameters": {"src": "/data/a", "dst": "/data/b"}}).encode()
PATH = "/api/v1/services/sync/users/alice/tasks"


def _request(port: int) -> bytes:
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(BODY)}\r\n\r\n"
    )
    return head.encode() + BODY


async def _answer(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 202"):
        raise SystemExit(f"unexpected answer: {head[:200]!r}")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    await reader.readexactly(int(fields[b"content-length"]))


async def _connection(port: int, until: float, times: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = _request(port)
    while (begun := time.perf_counter()) < until:
        writer.write(request)
        await _answer(reader)
        times.append((time.perf_counter() - begun) * 1000)
    writer.close()
    await writer.wait_closed()


async def _run(port: int, connections: int, seconds: float) -> None:
    times: list[float] = []
    begun = time.perf_counter()
    async with asyncio.timeout(seconds + 60):
        await asyncio.gather(
            *(_connection(port, begun + seconds, times) for _ in range(connections))
        )
    took = time.perf_counter() - begun
    print(json.dumps({"seconds": took, "answers": len(times), "ms": sorted(times)}))


if __name__ == "__main__":
    asyncio.run(_run(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
