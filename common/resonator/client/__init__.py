"""The client SDK: what the command line does, for programs and notebooks.

async with Client.connect("mqtt://127.0.0.1:1883") as client:
    job = await client.submit("model.onnx")
    async for status in client.follow(job):
        print(status.trials, status.estimate)
    await client.fetch(job, Path("model.tar"))
"""

from resonator.client.client import Client
from resonator.client.order import read_job

__all__ = ["Client", "read_job"]
