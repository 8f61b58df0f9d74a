"""The Python agent, as its users install it, profiles this program and pushes to a server of its own.

What it pushed must be found by its service, its labels and, through its OpenTelemetry package, by its spans. The server is
the binary that SPANFLAME_BIN names.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import pyroscope
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from pyroscope.otel import PyroscopeSpanProcessor

CPU = "process_cpu:cpu:nanoseconds:cpu:nanoseconds"
# How long anything may take on a machine that is busy with other things. The agent pushes every ten seconds.
PATIENCE = 180


def burn(seconds):
    """Takes CPU time under a name that is looked for."""
    end = time.process_time() + seconds
    number = 1
    while time.process_time() < end:
        number = number * 31 % 1_000_003
    return number


def ask(url, body=None):
    """An answer's JSON, or none if there is nothing."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise AssertionError(f"{url}: {error.code} {error.read().decode()}") from error


def names(server, selector):
    """The functions in the graph of what is selected."""
    query = {"profile_typeID": CPU, "label_selector": selector}
    graph = ask(f"{server}/querier.v1.QuerierService/SelectMergeStacktraces", query)["flamegraph"]
    return graph["names"]


def check(server):
    """Profiles this program until the server knows what it must."""
    provider = TracerProvider()
    provider.add_span_processor(PyroscopeSpanProcessor())
    trace.set_tracer_provider(provider)
    tracer = trace.get_tracer("check")
    pyroscope.configure(application_name="python.shop", server_address=server, tags={"region": "eu"})
    spans = []
    deadline = time.monotonic() + PATIENCE
    with pyroscope.tag_wrapper({"endpoint": "/pay"}):
        while not any(ask(f"{server}/api/v1/spans/{span}") for span in spans):
            assert time.monotonic() < deadline, f"none of {len(spans)} spans is known: {ask(server + '/api/v1/spans')}"
            with tracer.start_as_current_span("pay") as span:
                spans.append(format(span.get_span_context().span_id, "016x"))
                burn(1)
    found = next(ask(f"{server}/api/v1/spans/{span}") for span in spans if ask(f"{server}/api/v1/spans/{span}"))
    print(json.dumps(found))
    assert found["service"] == "python.shop", found
    assert found["cpuNanos"] > 0, found
    for selector in ('{service_name="python.shop"}', '{service_name="python.shop",region="eu",endpoint="/pay"}'):
        shown = names(server, selector)
        assert any("burn" in name for name in shown), f"{selector}: {shown}"
    pyroscope.shutdown()


def main():
    """Starts the server, checks, and ends it by its process id."""
    with tempfile.TemporaryDirectory() as data:
        command = [os.environ["SPANFLAME_BIN"], "serve", "--listen", "127.0.0.1:0", "--data-dir", data]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            address = server.stdout.readline().strip().removeprefix("listening on ")
            check(address)
        finally:
            server.terminate()
            server.wait(PATIENCE)
    print("the python agent's profiles are found")


if __name__ == "__main__":
    sys.exit(main())
