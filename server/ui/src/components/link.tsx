// A link within the page: a real address for new tabs and copying, no reload on a plain click.

import type { ComponentChildren } from "preact";
import { under } from "../base.ts";
import { navigate } from "../router.ts";

interface Props {
  /** Path (with query) below the base. */
  to: string;
  class?: string;
  title?: string;
  /** Whether it leads to the page that is shown. */
  current?: boolean;
  children: ComponentChildren;
}

export function Link({ to, children, current, ...rest }: Props) {
  return (
    <a
      {...rest}
      href={under(to)}
      aria-current={current ? "page" : undefined}
      onClick={(event) => {
        if (event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
        event.preventDefault();
        navigate(to);
        scrollTo(0, 0);
      }}
    >
      {children}
    </a>
  );
}
