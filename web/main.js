/** Start: who is signed in, then the page of the address. */

import { ApiError } from "./api.js";
import { Layout } from "./components/layout.js";
import { Failed, Loading } from "./components/states.js";
import { pageOf } from "./pages.js";
import { place, restoreScroll } from "./router.js";
import { loadAccount, useShared } from "./state.js";
import { html, render, useEffect, useErrorBoundary, useLayoutEffect, useRef, useState } from "./vendor/preact.js";

function App() {
  const here = useShared(place);
  const [start, setStart] = useState({ isReady: false, error: null });
  const begin = async () => {
    setStart({ isReady: false, error: null });
    try {
      await loadAccount();
      setStart({ isReady: true, error: null });
    } catch (error) {
      setStart({ isReady: false, error });
    }
  };
  useEffect(() => void begin(), []);
  return html`<${Layout} here=${here}>
    ${start.error
      ? html`<${Failed} isPage error=${start.error} retry=${begin} />`
      : start.isReady
        ? html`<${Page} key=${here.key} here=${here} />`
        : html`<${Loading} />`}
  <//>`;
}

/** The page of the address. Its module is loaded on the first visit. */
function Page({ here }) {
  const { load, module, params } = pageOf(here.path);
  const [state, setState] = useState({ View: module?.default ?? null, load, error: null });
  const isCurrent = state.load === load;
  useEffect(() => {
    if (isCurrent && (state.View || state.error)) return undefined;
    let isHere = true;
    load().then(
      ({ default: View }) => isHere && setState({ View, load, error: null }),
      () => isHere && setState({ View: null, load, error: new ApiError(0, "offline", "This page could not be loaded.") }),
    );
    return () => {
      isHere = false;
    };
  }, [load]);
  if (isCurrent && state.error) return html`<${Failed} isPage error=${state.error} retry=${() => location.reload()} />`;
  if (!isCurrent || !state.View) return html`<${Loading} />`;
  return html`<${Shown} View=${state.View} here=${here} params=${params} />`;
}

/** A page with the behaviour of all pages: scroll position, focus after navigation, failures. */
function Shown({ View, here, params }) {
  const element = useRef(null);
  const [failure, reset] = useErrorBoundary((error) => console.error(error));
  useLayoutEffect(() => {
    restoreScroll();
    // Screen readers begin to read here. The first page of a visit keeps the browser's own focus.
    if (here.cause === "push") (element.current?.querySelector("h1") ?? element.current)?.focus({ preventScroll: true });
  }, [here.key]);
  if (failure) {
    const error = new ApiError(0, "bug", "This page has a fault. The console of your browser has the details.");
    return html`<${Failed} isPage error=${error} retry=${reset} />`;
  }
  return html`<div class="page" ref=${element} tabindex="-1"><${View} ...${params} here=${here} /></div>`;
}

const app = /** @type {HTMLElement} */ (document.getElementById("app"));
app.replaceChildren();
render(html`<${App} />`, app);
