// The menu of files: made here of what is shown, or by the server of everything where it has a route for it.

import { useRef, useState } from "preact/hooks";
import { fetchFile, profileAddress, type ProfileRoute } from "../api.ts";
import { sentence } from "../components/states.tsx";
import { formatCount, formatValue } from "../format.ts";
import { useLogin } from "../token.ts";
import { foldedText, htmlText, svgText, type Shown } from "./export.ts";

interface Props {
  shown: Shown;
  samples: number;
  route: ProfileRoute | undefined;
  dark: boolean;
}

/** Formats that the server alone makes. */
const SERVER_FORMATS = [
  ["pprof", "pprof"],
  ["speedscope", "speedscope"],
  ["folded", "Folded stacks"],
  ["json", "JSON table"],
] as const;

export function Exports({ shown, samples, route, dark }: Props) {
  const html = () =>
    htmlText(
      inPlainColours(shown),
      [
        ["Total", formatValue(shown.tree.total[0]!, shown.unit)],
        ...(samples > 0 ? ([["Samples", formatCount(samples)]] as [string, string][]) : []),
        ["Page", location.href],
      ],
      dark,
    );
  const menu = useRef<HTMLDetailsElement>(null);
  const close = () => {
    if (menu.current) menu.current.open = false;
  };
  return (
    <details
      class="menu"
      ref={menu}
      onKeyDown={(event) => {
        if (event.key !== "Escape") return;
        close();
        menu.current?.querySelector("summary")?.focus();
      }}
      onFocusOut={({ relatedTarget }) => {
        if (relatedTarget instanceof Node && !menu.current?.contains(relatedTarget)) close();
      }}
    >
      <summary>Export</summary>
      <div class="menu-items" onClick={close}>
        {route ? (
          SERVER_FORMATS.map(([format, title]) => (
            <ServerFile
              key={format}
              address={profileAddress(route, format)}
              title={title}
              name={shown.title}
            />
          ))
        ) : (
          <button type="button" onClick={() => save(shown, "folded.txt", "text/plain", foldedText(shown))}>
            Folded stacks
          </button>
        )}
        <button
          type="button"
          onClick={() => save(shown, "svg", "image/svg+xml", svgText(inPlainColours(shown)))}
        >
          Picture (SVG)
        </button>
        <button type="button" onClick={() => save(shown, "html", "text/html", html())}>
          Self-contained HTML
        </button>
      </div>
    </details>
  );
}

/** A file that the server makes: a link, which the browser cannot follow where a token of this page's has to go along. */
function ServerFile({ address, title, name }: { address: string; title: string; name: string }) {
  const { hasToken } = useLogin();
  const [problem, setProblem] = useState("");
  const fetchIt = async (event: Event) => {
    if (!hasToken) return;
    event.preventDefault();
    try {
      const { bytes, fileName: told } = await fetchFile(address, new AbortController().signal);
      saveBlob(new Blob([bytes]), told ?? `${fileName(name)}.${title}`);
    } catch (error) {
      setProblem(error instanceof Error ? error.message : String(error));
    }
  };
  return (
    <a href={address} download="" onClick={(event) => void fetchIt(event)}>
      {title}
      {problem !== "" && <span role="alert"> {sentence(problem)}</span>}
    </a>
  );
}

/** The colours as every program reads them: few beside browsers know `oklch()`. */
function inPlainColours(shown: Shown): Shown {
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  if (!context) return shown;
  const plain = (colour: string) => {
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    const [red, green, blue] = context.getImageData(0, 0, 1, 1).data;
    return `rgb(${red},${green},${blue})`;
  };
  const known = new Map<string, string>();
  const fills = shown.palette.fills.map((fill) => {
    const found = known.get(fill) ?? plain(fill);
    known.set(fill, found);
    return found;
  });
  return { ...shown, palette: { ...shown.palette, fills } };
}

/** A title as a name that means the same to every file system. */
function fileName(title: string): string {
  return (
    title
      .replace(/[^A-Za-z0-9_-]+/g, "-")
      .replace(/^-+|-+$/g, "")
      .slice(0, 80) || "profile"
  );
}

function save({ title }: Shown, extension: string, type: string, text: string): void {
  saveBlob(new Blob([text], { type }), `${fileName(title)}.${extension}`);
}

function saveBlob(blob: Blob, name: string): void {
  const address = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  // The browser has taken hold of it by the time the next task runs.
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
