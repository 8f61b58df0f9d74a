// How to send traces, where the server has none.

import { under } from "../base.ts";
import { CopyButton } from "./copy.tsx";

export function SendTraces() {
  const line = `OTEL_EXPORTER_OTLP_ENDPOINT=${under("").replace(/\/$/, "")} OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf`;
  return (
    <p class="with-copy send-traces">
      <span>To see durations, send this server your traces:</span> <code class="name">{line}</code>
      <CopyButton text={line} what="variables" />
    </p>
  );
}
