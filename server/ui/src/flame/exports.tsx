// The menu of files: made here of what is shown, or by the server of everything where it has a route for it.

import type { ComponentChildren } from "preact";
import { useRef, useState } from "preact/hooks";
import { fetchFile, profileAddress, type ProfileRoute } from "../api.ts";
import { sentence } from "../components/states.tsx";
import { formatCount, formatValue } from "../format.ts";
import { useLogin } from "../token.ts";
import { foldedDiff, foldedText, htmlText, svgText, type Shown } from "./export.ts";

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
  const facts: [string, string][] = [
    ["Total", formatValue(shown.tree.total[0]!, shown.unit)],
    ...(samples > 0 ? ([["Samples", formatCount(samples)]] as [string, string][]) : []),
  ];
  return (
    <Menu>
      {route ? (
        SERVER_FORMATS.map(([format, title]) => (
          <ServerFile key={format} address={profileAddress(route, format)} title={title} name={shown.title} />
        ))
      ) : (
        <button type="button" onClick={() => save(shown, "folded.txt", "text/plain", foldedText(shown))}>
          Folded stacks
        </button>
      )}
      <Pictures shown={shown} facts={facts} dark={dark} />
    </Menu>
  );
}

/** What of a comparison is exported. */
interface DiffProps {
  shown: Shown;
  /** By bar of the graph that is shown. */
  left: Float64Array;
  right: Float64Array;
  samples: { left: number; right: number };
  /** Where the server has the sides in other formats. */
  routes: readonly [ProfileRoute | undefined, ProfileRoute | undefined];
  dark: boolean;
}

/** Files of a comparison and of each of its sides. */
export function DiffExports({ shown, left, right, samples, routes, dark }: DiffProps) {
  const side = (self: Float64Array) => foldedText({ tree: { ...shown.tree, self } });
  const text = (ending: string, content: () => string) => () =>
    save(shown, `${ending}.folded.txt`, "text/plain", content());
  return (
    <Menu>
      {routes.map(
        (route, i) =>
          route && (
            <ServerFile
              key={i}
              address={profileAddress(route, "pprof")}
              title={`${i === 0 ? "Baseline" : "Compared"}, pprof`}
              name={shown.title}
            />
          ),
      )}
      <button type="button" onClick={text("baseline", () => side(left))}>
        Baseline, folded stacks
      </button>
      <button type="button" onClick={text("compared", () => side(right))}>
        Compared, folded stacks
      </button>
      <button type="button" onClick={text("diff", () => foldedDiff(shown.tree, left, right))}>
        Difference, folded stacks
      </button>
      <Pictures
        shown={shown}
        facts={[["Samples", `${formatCount(samples.left)} and ${formatCount(samples.right)}`]]}
        dark={dark}
      />
    </Menu>
  );
}

/** The files that show what is on the screen. */
function Pictures({ shown, facts, dark }: { shown: Shown; facts: [string, string][]; dark: boolean }) {
  const html = () => htmlText(inPlainColours(shown), [...facts, ["Page", location.href]], dark);
  return (
    <>
      <button
        type="button"
        onClick={() => save(shown, "svg", "image/svg+xml", svgText(inPlainColours(shown)))}
      >
        Picture (SVG)
      </button>
      <button type="button" onClick={() => save(shown, "html", "text/html", html())}>
        Self-contained HTML
      </button>
    </>
  );
}

function Menu({ children }: { children: ComponentChildren }) {
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
        {children}
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
  const readable = (fill: string) => {
    const found = known.get(fill) ?? plain(fill);
    known.set(fill, found);
    return found;
  };
  const { palette, fills } = shown;
  return {
    ...shown,
    palette: { ...palette, fillOf: (name) => readable(palette.fillOf(name)) },
    ...(fills ? { fills: fills.map(readable) } : {}),
  };
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
