// What spans say of themselves, sent as OpenTelemetry's exporters do, in its JSON.

import type { TestSpan } from "./dataset.ts";
import type { TestServer } from "./server.ts";

/** A span's time and what else it says. */
export interface ToldSpan {
  span: Pick<TestSpan, "service" | "name" | "spanId" | "traceId" | "parentId">;
  startMillis: number;
  nanos: number;
  /** A message makes it an error. */
  error?: string;
  attributes?: Record<string, string>;
  event?: string;
}

/** Sends spans. */
export async function sendTraces(server: TestServer, spans: ToldSpan[]): Promise<void> {
  const text = (key: string, stringValue: string) => ({ key, value: { stringValue } });
  const nanos = (millis: number) => BigInt(Math.round(millis)) * 1_000_000n;
  const resourceSpans = spans.map(({ span, startMillis, nanos: length, error, attributes = {}, event }) => ({
    resource: { attributes: [text("service.name", span.service)] },
    scopeSpans: [
      {
        spans: [
          {
            traceId: span.traceId,
            spanId: span.spanId,
            parentSpanId: span.parentId ?? "",
            name: span.name,
            kind: 2,
            startTimeUnixNano: String(nanos(startMillis)),
            endTimeUnixNano: String(nanos(startMillis) + BigInt(Math.round(length))),
            status: error === undefined ? {} : { code: 2, message: error },
            attributes: Object.entries(attributes).map(([key, value]) => text(key, value)),
            events: event === undefined ? [] : [{ name: event, timeUnixNano: String(nanos(startMillis)) }],
          },
        ],
      },
    ],
  }));
  const response = await fetch(`${server.url}/v1/traces`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ resourceSpans }),
  });
  const answer = await response.text();
  if (!response.ok || answer !== "{}") throw new Error(`traces: ${response.status} ${answer}`);
}
