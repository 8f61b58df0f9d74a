// Chooses the time that a page is about.

import { CopyButton } from "./copy.tsx";
import { formatInterval } from "../format.ts";
import { DEFAULT_PRESET, PRESETS, type RangeChoice, type TimeRange } from "../range.ts";
import { setQuery } from "../router.ts";

interface Props {
  choice: RangeChoice;
  /** The instants that are shown, once they are known. */
  range: TimeRange | undefined;
  onRefresh: () => void;
}

export function RangePicker({ choice, range, onRefresh }: Props) {
  return (
    <div class="range">
      <label>
        <span class="visually-hidden">Time</span>
        <select
          value={choice.preset ?? ""}
          onChange={({ currentTarget: { value } }) => {
            const range = value === DEFAULT_PRESET ? undefined : value;
            setQuery({ range, from: undefined, until: undefined, brush: undefined }, "push");
          }}
        >
          {choice.preset === undefined && (
            <option value="">{formatInterval(choice.range.from, choice.range.until)}</option>
          )}
          {PRESETS.map(([name, title]) => (
            <option key={name} value={name}>
              {title}
            </option>
          ))}
        </select>
      </label>
      <button type="button" onClick={onRefresh}>
        Refresh
      </button>
      {range && <CopyButton text={lasting(range)} what="link to this time" />}
    </div>
  );
}

/** The page's address with a time that does not move with the clock. */
function lasting({ from, until }: TimeRange): string {
  const address = new URL(location.href);
  address.searchParams.delete("range");
  address.searchParams.set("from", String(from));
  address.searchParams.set("until", String(until));
  return address.href;
}
