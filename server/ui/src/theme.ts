// Light or dark: the system's preference unless the reader chose. The choice is kept in this browser.

import { useEffect, useState } from "preact/hooks";

export type Theme = "system" | "light" | "dark";

const KEY = "spanflame.theme";
const system = matchMedia("(prefers-color-scheme: dark)");

/** The reader's choice. */
export function storedTheme(): Theme {
  try {
    const stored = localStorage.getItem(KEY);
    return stored === "light" || stored === "dark" ? stored : "system";
  } catch {
    // Storage can be forbidden; the choice then lasts as long as the page.
    return "system";
  }
}

/** Puts a choice into effect: the style sheet follows the attribute, the canvas follows `useTheme`. */
export function applyTheme(theme: Theme): void {
  if (theme === "system") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = theme;
}

/** The choice, whether it comes out dark, and how to change it. */
export function useTheme(): { theme: Theme; dark: boolean; setTheme: (theme: Theme) => void } {
  const [theme, setState] = useState<Theme>(storedTheme);
  const [systemDark, setSystemDark] = useState(system.matches);
  useEffect(() => {
    const update = () => setSystemDark(system.matches);
    system.addEventListener("change", update);
    return () => system.removeEventListener("change", update);
  }, []);
  const setTheme = (next: Theme) => {
    try {
      if (next === "system") localStorage.removeItem(KEY);
      else localStorage.setItem(KEY, next);
    } catch {
      // See `storedTheme`.
    }
    applyTheme(next);
    setState(next);
  };
  return { theme, dark: theme === "dark" || (theme === "system" && systemDark), setTheme };
}
