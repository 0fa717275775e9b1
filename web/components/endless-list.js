/** A list that loads its next page when the reader nears the end. */

import { html, useEffect, useRef } from "../vendor/preact.js";
import { Failed, Loading } from "./states.js";

/** @param {{list: any, render: (item: any, index: number) => unknown, empty: unknown, label: string, class?: string}} props */
export function EndlessList({ list, render, empty, label, class: kind = "" }) {
  const end = useRef(null);
  const loadMore = useRef(list.loadMore);
  loadMore.current = list.loadMore;
  const isWaiting = list.hasMore && !list.isLoading && !list.error && list.items.length > 0;
  useEffect(() => {
    if (!isWaiting) return undefined;
    const observer = new IntersectionObserver(([entry]) => entry.isIntersecting && loadMore.current(), {
      rootMargin: "600px",
    });
    observer.observe(end.current);
    return () => observer.disconnect();
  }, [isWaiting, list.items.length]);
  if (list.items.length === 0) {
    if (list.error) return html`<${Failed} error=${list.error} retry=${list.reload} />`;
    return list.isLoading ? html`<${Loading} />` : empty;
  }
  return html`<div>
    <ul class="list ${kind}" aria-label=${label}>
      ${list.items.map(render)}
    </ul>
    <div ref=${end} class=${list.hasMore || list.error || list.items.length > 5 ? "list-end" : ""}>
      ${list.error
        ? html`<${Failed} error=${list.error} retry=${list.loadMore} />`
        : list.isLoading
          ? html`<${Loading} rows=${1} label="Loading more" />`
          : list.hasMore
            ? html`<button class="button" onClick=${list.loadMore}>Show more</button>`
            : list.items.length > 5 && html`<p class="hint">That is all.</p>`}
    </div>
  </div>`;
}
