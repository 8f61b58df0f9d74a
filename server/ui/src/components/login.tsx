// Asks for the token that the server wants, and tries it before it is kept.

import { useEffect, useState } from "preact/hooks";
import { ApiError, checkToken } from "../api.ts";
import { logIn } from "../token.ts";
import { sentence } from "./states.tsx";

export function LoginPage({ refusal }: { refusal: string }) {
  const [text, setText] = useState("");
  const [problem, setProblem] = useState("");
  const [isBusy, setBusy] = useState(false);
  useEffect(() => {
    document.title = "Sign in · Spanflame";
  }, []);
  const submit = async () => {
    const token = text.trim();
    if (!/^[\x21-\x7e]+$/.test(token)) {
      setProblem("A token is one word of letters, digits and signs.");
      return;
    }
    setBusy(true);
    try {
      await checkToken(token, AbortSignal.timeout(30_000));
      logIn(token);
    } catch (error) {
      const isWrong = error instanceof ApiError && error.status === 401;
      const why = error instanceof ApiError ? error.message : "The server does not answer.";
      setProblem(isWrong ? "The server does not know this token." : sentence(why));
      setBusy(false);
    }
  };
  return (
    <section class="notice" data-testid="login">
      <h1>Sign in</h1>
      <p>{sentence(refusal)}</p>
      <form
        class="lookup"
        onSubmit={(event) => {
          event.preventDefault();
          void submit();
        }}
      >
        <label for="token">Token</label>
        <div class="row">
          <input
            id="token"
            type="password"
            class="mono"
            value={text}
            autocomplete="current-password"
            spellcheck={false}
            maxLength={1024}
            aria-invalid={problem !== ""}
            aria-describedby="token-problem"
            onInput={(event) => {
              setText(event.currentTarget.value);
              setProblem("");
            }}
          />
          <button type="submit" class="primary" disabled={isBusy}>
            Sign in
          </button>
        </div>
        <p id="token-problem" class="problem" role="alert">
          {problem}
        </p>
      </form>
      <p class="quiet">
        Who runs the server gives tokens out. This tab keeps it until it is closed or you sign out, and sends
        it to this server alone.
      </p>
    </section>
  );
}
