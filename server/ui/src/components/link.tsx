// A link within the page: a real address for new tabs and copying, no reload on a plain click.

import type { ComponentChildren } from "preact";
import { under } from "../base.ts";
import { navigate } from "../router.ts";

interface Props {
  /** Path (with query) below the base. */
  to: string;
  class?: string;
  title?: string;
  children: ComponentChildren;
}

export function Link({ to, children, ...rest }: Props) {
  return (
    <a
      {...rest}
      href={under(to)}
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
