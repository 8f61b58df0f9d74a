"""A Python service as its owners write it: pyroscope-io with pyroscope-otel. Burns CPU in a span and prints the span's ids."""

import json
import sys
import time

import pyroscope
from opentelemetry.sdk.trace import TracerProvider
from pyroscope.otel import PyroscopeSpanProcessor


def price_basket(until):
    total = 0
    while time.process_time() < until:
        total += sum(i * i for i in range(1000))
    return total


server, seconds = sys.argv[1], float(sys.argv[2])
pyroscope.configure(application_name="python.shop", server_address=server, tags={"region": "north"})
provider = TracerProvider()
provider.add_span_processor(PyroscopeSpanProcessor())
with provider.get_tracer("shop").start_as_current_span("GET /basket") as span:
    context = span.get_span_context()
    price_basket(time.process_time() + seconds)
    attribute = span.attributes["pyroscope.profile.id"]
pyroscope.shutdown()
print(json.dumps({"span": format(context.span_id, "016x"), "trace": format(context.trace_id, "032x"), "attribute": attribute}))
