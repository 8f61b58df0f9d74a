// An address that names no page.

import { Link } from "../components/link.tsx";
import { LookUp } from "../components/lookup.tsx";

export function MissingPage({ path }: { path: string }) {
  return (
    <section class="notice">
      <h1>No such page</h1>
      <p>
        Nothing is served at <code class="name">/{path.slice(0, 200)}</code>. A span is at <code>/span/</code>{" "}
        followed by its id.
      </p>
      <LookUp id="lookup" />
      <p>
        <Link to="">All spans</Link>
      </p>
    </section>
  );
}
