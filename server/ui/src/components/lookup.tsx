// The box that takes a span id (or a trace id) and goes there.

import { useState } from "preact/hooks";
import { parseId } from "../ids.ts";
import { navigate } from "../router.ts";

interface Props {
  /** Text to start with, such as an id that was not found. */
  initial?: string;
  id: string;
}

export function LookUp({ initial = "", id }: Props) {
  const [text, setText] = useState(initial);
  const [problem, setProblem] = useState("");
  return (
    <form
      class="lookup"
      role="search"
      onSubmit={(event) => {
        event.preventDefault();
        const parsed = parseId(text);
        if (parsed.kind === "invalid") {
          setProblem(parsed.message);
          return;
        }
        setProblem("");
        navigate(parsed.kind === "span" ? `span/${parsed.id}` : `trace/${parsed.id}`);
      }}
    >
      <label for={id}>Span id or trace id</label>
      <div class="row">
        <input
          id={id}
          type="text"
          class="mono"
          value={text}
          placeholder="00f067aa0ba902b7"
          autocomplete="off"
          autocapitalize="none"
          spellcheck={false}
          maxLength={400}
          aria-invalid={problem !== ""}
          aria-describedby={`${id}-problem`}
          onInput={(event) => {
            setText(event.currentTarget.value);
            setProblem("");
          }}
        />
        <button type="submit" class="primary">
          Open
        </button>
      </div>
      <p id={`${id}-problem`} class="problem" role="alert">
        {problem}
      </p>
    </form>
  );
}
