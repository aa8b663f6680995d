// The script of the page: what the test may ask of it by name is a property of window.page.

import * as hostile from "./hostile";
import { Table } from "./table";
import { Watch } from "./watch";

const table = new Table();
let watch: Watch | undefined;

/** The running watch. */
function running(): Watch {
  if (watch === undefined) throw new Error("nothing is watched");
  return watch;
}

const page = {
  ...hostile,

  /** Begins a watch and shows its objects; what went before is forgotten. */
  watch(options: ConstructorParameters<typeof Watch>[0]): void {
    watch?.abort();
    table.clear(`${options.target.resource ?? ""} of ${options.gateway}`);
    watch = new Watch(options, table);
  },
  /** Resolves when the table shows the object, with the cells of its row. */
  shown: (name: string) => table.until(() => table.row(name)),
  /** Resolves when the table does not show the object. */
  gone: (name: string) => table.until(() => table.row(name) === undefined || undefined),
  /** Resolves when so many events have come. */
  events: (count: number) => table.until(() => running().notes.length >= count || undefined),
  /** The notes of all events, in the order in which they came. */
  notes: () => running().notes,
  /** The object as it last came. */
  object: (name: string) => running().objects.get(name),
  /** Resolves with how the watch ended. */
  ended: () => running().ended,
  /** Aborts the watch as a page does that no longer wants it. */
  abort: () => running().abort(),
};

export type Page = typeof page;

declare global {
  interface Window {
    page: Page;
  }
}

window.page = page;
