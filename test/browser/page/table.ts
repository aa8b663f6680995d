// The objects of a watch as a person sees them.

/** Cells are what a row shows. */
export interface Cells {
  namespace: string;
  name: string;
  note: string;
}

/** Table shows one row for each object and tells who waits for a change. */
export class Table {
  private readonly body = element("objects");
  private readonly rows = new Map<string, HTMLTableRowElement>();
  private waiting: (() => void)[] = [];

  /** Shows no objects, and a new heading. */
  clear(heading: string): void {
    this.body.replaceChildren();
    this.rows.clear();
    element("resource").textContent = heading;
    this.say("");
  }

  /** Shows the object in its row, or in a new one. */
  put(cells: Cells): void {
    let row = this.rows.get(cells.name);
    if (row === undefined) {
      row = document.createElement("tr");
      this.body.append(row);
      this.rows.set(cells.name, row);
    }
    row.replaceChildren(...[cells.namespace, cells.name, cells.note].map(cell));
    this.changed();
  }

  /** Takes the object's row away. */
  remove(name: string): void {
    this.rows.get(name)?.remove();
    this.rows.delete(name);
    this.changed();
  }

  /** Shows what became of the watch. */
  say(state: string): void {
    element("state").textContent = state;
    this.changed();
  }

  /** What the row of the object shows, read from the document. */
  row(name: string): Cells | undefined {
    const texts = [...(this.rows.get(name)?.cells ?? [])].map((c) => c.textContent);
    return texts.length === 0 ? undefined : { namespace: texts[0], name: texts[1], note: texts[2] };
  }

  /** Resolves with what look returns as soon as, after some change, that is not undefined. */
  async until<T>(look: () => T | undefined): Promise<T> {
    for (;;) {
      const found = look();
      if (found !== undefined) return found;
      await new Promise<void>((resolve) => this.waiting.push(resolve));
    }
  }

  private changed(): void {
    const waiting = this.waiting;
    this.waiting = [];
    for (const resume of waiting) resume();
  }
}

function cell(text: string): HTMLTableCellElement {
  const td = document.createElement("td");
  td.textContent = text;
  return td;
}

function element(id: string): HTMLElement {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no #${id}`);
  return found;
}
