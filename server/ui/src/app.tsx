// The frame around every page, and the choice of the page.

import { useEffect } from "preact/hooks";
import { Link } from "./components/link.tsx";
import { LoginPage } from "./components/login.tsx";
import { ComparePage } from "./pages/compare.tsx";
import { HomePage } from "./pages/home.tsx";
import { MissingPage } from "./pages/missing.tsx";
import { OperationPage } from "./pages/operation.tsx";
import { RequestsPage } from "./pages/requests.tsx";
import { ServicesPage } from "./pages/services.tsx";
import { SpanPage } from "./pages/span.tsx";
import { TracePage } from "./pages/trace.tsx";
import { TracesPage } from "./pages/traces.tsx";
import { routeOf, useLocation, type Route } from "./router.ts";
import { type Theme, useTheme } from "./theme.ts";
import { logOut, useLogin } from "./token.ts";

const NAVIGATION = [
  ["", "Spans"],
  ["traces", "Traces"],
  ["services", "Services"],
  ["function", "Functions"],
  ["compare", "Compare"],
] as const;

export function App() {
  const { path, query } = useLocation();
  const { theme, dark, setTheme } = useTheme();
  const { hasToken, refusal } = useLogin();
  const route = routeOf(path);
  useEffect(() => {
    if (route.page === "home" || route.page === "missing") document.title = "Spanflame";
  }, [path]);
  return (
    <>
      <a class="skip" href="#content" onClick={skipToContent}>
        Skip to content
      </a>
      <header class="site">
        <Link to="" class="brand">
          <Mark />
          Spanflame
        </Link>
        <nav aria-label="Pages">
          {NAVIGATION.map(([to, title]) => (
            <Link key={to} to={to} current={path === to}>
              {title}
            </Link>
          ))}
        </nav>
        {hasToken && (
          <button type="button" onClick={logOut}>
            Sign out
          </button>
        )}
        <label class="theme">
          Theme
          <select value={theme} onChange={(event) => setTheme(event.currentTarget.value as Theme)}>
            <option value="system">System</option>
            <option value="light">Light</option>
            <option value="dark">Dark</option>
          </select>
        </label>
      </header>
      <main id="content" tabIndex={-1}>
        {refusal !== undefined ? (
          <LoginPage refusal={refusal} />
        ) : (
          <Page route={route} query={query} dark={dark} path={path} />
        )}
      </main>
    </>
  );
}

interface PageProps {
  route: Route;
  path: string;
  query: URLSearchParams;
  dark: boolean;
}

function Page({ route, path, query, dark }: PageProps) {
  return (
    <>
      {route.page === "home" && <HomePage query={query} />}
      {route.page === "traces" && <TracesPage query={query} />}
      {route.page === "services" && <ServicesPage query={query} />}
      {route.page === "operation" && <OperationPage query={query} dark={dark} />}
      {route.page === "function" && <RequestsPage query={query} />}
      {route.page === "compare" && <ComparePage query={query} dark={dark} />}
      {route.page === "span" && <SpanPage key={route.id} id={route.id} query={query} dark={dark} />}
      {route.page === "trace" && <TracePage key={route.id} id={route.id} query={query} dark={dark} />}
      {route.page === "missing" && <MissingPage path={path} />}
    </>
  );
}

// The fragment would be taken for an address below the page's own; focus is all that is wanted.
function skipToContent(event: Event): void {
  event.preventDefault();
  document.getElementById("content")?.focus();
}

function Mark() {
  return (
    <svg viewBox="0 0 32 32" width="22" height="22" aria-hidden="true">
      <rect x="2" y="4" width="28" height="6" rx="1.5" fill="#c2410c" />
      <rect x="2" y="12" width="19" height="6" rx="1.5" fill="#ea580c" />
      <rect x="23" y="12" width="7" height="6" rx="1.5" fill="#f59e0b" />
      <rect x="5" y="20" width="10" height="6" rx="1.5" fill="#f59e0b" />
    </svg>
  );
}
