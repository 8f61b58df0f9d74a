// Search, orientation, folding and the profile type: everything that changes how the graph is shown.

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

interface Props {
  term: string;
  onTerm: (term: string) => void;
  /** What the search found, in words; "" without a search. */
  found: string;
  flipped: boolean;
  onFlipped: (flipped: boolean) => void;
  folded: boolean;
  onFolded: (folded: boolean) => void;
  types: { id: string; label: string }[];
  type: string;
  onType: (id: string) => void;
  /** What else there is to do with the graph. */
  children?: ComponentChildren;
}

/** Whether the address wants the runtime frames folded, which they are unless it says otherwise. */
export function isFolded(query: URLSearchParams): boolean {
  return query.get("runtime") !== "show";
}

/** Typing pauses that long before the address and the graph follow. */
const PAUSE_MS = 120;

export function Toolbar(props: Props) {
  return (
    <div class="toolbar">
      <SearchBox term={props.term} onTerm={props.onTerm} />
      <span class="found" role="status" data-testid="found">
        {props.found}
      </span>
      <span class="spring" />
      <TypeChoice types={props.types} type={props.type} onType={props.onType} />
      <label class="check">
        <input
          type="checkbox"
          checked={props.folded}
          onChange={(event) => props.onFolded(event.currentTarget.checked)}
        />
        Fold runtime frames
      </label>
      <div class="segments" role="group" aria-label="Direction">
        <button type="button" aria-pressed={!props.flipped} onClick={() => props.onFlipped(false)}>
          Icicle
        </button>
        <button type="button" aria-pressed={props.flipped} onClick={() => props.onFlipped(true)}>
          Flame
        </button>
      </div>
      {props.children}
    </div>
  );
}

/** The profile type, where there is a choice. */
export function TypeChoice({ types, type, onType }: Pick<Props, "types" | "type" | "onType">) {
  if (types.every(({ id }) => id === type)) return null;
  return (
    <label>
      <span class="visually-hidden">Profile type</span>
      <select value={type} onChange={(event) => onType(event.currentTarget.value)}>
        {types.map(({ id, label }) => (
          <option key={id} value={id}>
            {label}
          </option>
        ))}
      </select>
    </label>
  );
}

function SearchBox({ term, onTerm }: { term: string; onTerm: (term: string) => void }) {
  const [text, setText] = useState(term);
  const input = useRef<HTMLInputElement>(null);
  const sent = useRef(term);
  useEffect(() => {
    // The address changed by other means than typing here: back, forward, or a row of the table.
    if (term !== sent.current) {
      sent.current = term;
      setText(term);
    }
  }, [term]);
  useEffect(() => {
    if (text === sent.current) return;
    const timer = setTimeout(() => {
      sent.current = text;
      onTerm(text);
    }, PAUSE_MS);
    return () => clearTimeout(timer);
  }, [text]);
  useEffect(() => {
    const focus = (event: KeyboardEvent) => {
      const isTyping = event.target instanceof Element && event.target.matches("input, select, textarea");
      if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || isTyping) return;
      event.preventDefault();
      input.current?.focus();
      input.current?.select();
    };
    addEventListener("keydown", focus);
    return () => removeEventListener("keydown", focus);
  }, []);
  return (
    <label class="search">
      <span class="visually-hidden">Search functions</span>
      <input
        ref={input}
        type="search"
        placeholder="Search functions"
        value={text}
        maxLength={2000}
        spellcheck={false}
        autocomplete="off"
        onInput={(event) => setText(event.currentTarget.value)}
      />
    </label>
  );
}
