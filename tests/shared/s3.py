"""An S3 server in memory with the buckets that are named, on a port of the system's choice: moto's.

moto looks whether an object is there and then puts it, so that of two conditional puts at a time both may win. An object
store sees to it that one does, and so does this.
"""

import sys
import threading

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import WSGIRequestHandler, make_server

application = DomainDispatcherApplication(create_backend_app)
changes = threading.Lock()


def one_change_at_a_time(environ, start_response):
    if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
        return application(environ, start_response)
    with changes:
        return list(application(environ, start_response))


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *_):
        pass


for bucket in sys.argv[1:]:
    s3_backends["123456789012"]["aws"].create_bucket(bucket, "us-east-1")
server = make_server("127.0.0.1", 0, one_change_at_a_time, threaded=True, request_handler=Handler)
print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
