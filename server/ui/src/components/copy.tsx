// A button that copies a text and says whether it did.

import { useEffect, useState } from "preact/hooks";
import { copyText } from "../clipboard.ts";

interface Props {
  text: string;
  /** What is copied, for the accessible name: "trace id". */
  what: string;
}

export function CopyButton({ text, what }: Props) {
  const [outcome, setOutcome] = useState<"" | "Copied" | "Copy failed">("");
  useEffect(() => {
    if (outcome === "") return;
    const timer = setTimeout(() => setOutcome(""), 1800);
    return () => clearTimeout(timer);
  }, [outcome]);
  return (
    <>
      <button
        type="button"
        class="icon-button"
        aria-label={`Copy ${what}`}
        title={outcome || `Copy ${what}`}
        data-outcome={outcome}
        onClick={async () => setOutcome((await copyText(text)) ? "Copied" : "Copy failed")}
      >
        <svg viewBox="0 0 16 16" width="14" height="14" aria-hidden="true">
          {outcome === "Copied" ? (
            <path d="M3 8.5l3.2 3.2L13 5" fill="none" stroke="currentColor" stroke-width="1.8" />
          ) : (
            <path
              d="M5.5 5.5v-3h8v8h-3M2.5 5.5h8v8h-8z"
              fill="none"
              stroke="currentColor"
              stroke-width="1.3"
              stroke-linejoin="round"
            />
          )}
        </svg>
      </button>
      <span role="status" class="visually-hidden">
        {outcome}
      </span>
    </>
  );
}
