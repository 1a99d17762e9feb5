"""A receiver of OTLP over HTTP. It decodes with the official classes of the protocol (the package
opentelemetry-proto), and writes one line of JSON for each request into the file that it is given. How it answers
stands in another file, which it reads before each answer: a status code, `hang`, `partial`, or `retry-after`."""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

port, requests, behaviour = int(sys.argv[1]), sys.argv[2], sys.argv[3]


def value(any_value):
    kind = any_value.WhichOneof("value")
    return getattr(any_value, kind) if kind else None


def attributes(pairs):
    return {pair.key: value(pair.value) for pair in pairs}


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        request = ExportTraceServiceRequest.FromString(body)
        spans = []
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    spans.append({
                        "resource": attributes(resource.resource.attributes),
                        "scope": scope.scope.name,
                        "trace_id": span.trace_id.hex(),
                        "span_id": span.span_id.hex(),
                        "parent": span.parent_span_id.hex(),
                        "name": span.name,
                        "kind": span.kind,
                        "start": span.start_time_unix_nano,
                        "end": span.end_time_unix_nano,
                        "status": span.status.code,
                        "attributes": attributes(span.attributes),
                        "events": len(span.events),
                    })
        how = open(behaviour).read().strip()
        line = {
            "path": self.path,
            "headers": {name.lower(): text for name, text in self.headers.items()},
            "answer": how,
            "spans": spans,
            "everything": json.dumps(MessageToDict(request)),
        }
        with open(requests, "a") as file:
            file.write(json.dumps(line) + "\n")
        if how == "hang":
            time.sleep(60)
        code, answer, headers = 200, ExportTraceServiceResponse(), {}
        if how == "partial":
            answer.partial_success.rejected_spans = 1
            answer.partial_success.error_message = "one span is too old"
        elif how == "retry-after":
            code, headers = 429, {"retry-after": "1"}
        elif how == "redirect":
            code, headers = 307, {"location": "/elsewhere"}
        elif how.isdigit():
            code = int(how)
        text = answer.SerializeToString()
        self.send_response(code)
        for name, header in headers.items():
            self.send_header(name, header)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", port), Receiver).serve_forever()
