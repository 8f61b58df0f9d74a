// The facts under a page's heading.

import type { ComponentChildren } from "preact";
import { formatInterval } from "../format.ts";
import { CopyButton } from "./copy.tsx";
import { Link } from "./link.tsx";

interface FactProps {
  term: string;
  strong?: boolean;
  id?: string;
  title?: string;
  children: ComponentChildren;
}

export function Fact({ term, strong, id, title, children }: FactProps) {
  return (
    <div class={strong ? "fact strong" : "fact"}>
      <dt>{term}</dt>
      <dd data-testid={id} title={title}>
        {children}
      </dd>
    </div>
  );
}

export function IdFact({ term, id, to }: { term: string; id: string; to?: string }) {
  return (
    <div class="fact">
      <dt>{term}</dt>
      <dd class="mono with-copy">
        {to === undefined ? <span>{id}</span> : <Link to={to}>{id}</Link>}
        <CopyButton text={id} what={`${term.toLowerCase()} id`} />
      </dd>
    </div>
  );
}

/** When something was profiled: in the reader's time, in UTC when pointed at. */
export function TimeFact({ from, until }: { from: number; until: number }) {
  const [start, end] = [new Date(from).toISOString(), new Date(until).toISOString()];
  return (
    <Fact term="Profiled">
      <time dateTime={start} title={`${start} – ${end}`}>
        {formatInterval(from, until)}
      </time>
    </Fact>
  );
}
