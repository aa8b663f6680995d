// Drives Chromium for the Go test: one JSON object a line on standard input asks, one on standard output answers; what asks names
// an id, and answers come as they are ready. Ends, and Chromium with it, at the end of standard input.
//
//   node driver.js EXECUTABLE [FLAG...]

import * as readline from "node:readline";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";

interface Question {
  id: number;
  /** What to do. */
  do: keyof typeof actions;
  /** The context or the tab to do it with. */
  on?: number;
  url?: string;
  /** A property of the page's window.page, and what to call it with. */
  name?: string;
  arguments?: unknown[];
}

const contexts = new Map<number, BrowserContext>();
const tabs = new Map<number, { page: Page; crashed: Promise<void> }>();
let lastNumber = 0;

const actions = {
  /** A browser context shares no connection and no cache with another. */
  async context(browser: Browser): Promise<number> {
    const number = ++lastNumber;
    contexts.set(number, await browser.newContext());
    return number;
  },

  /** A tab in the context with a page of ours, once it is loaded. */
  async open(_: Browser, q: Question): Promise<number> {
    const page = await at(contexts, q.on).newPage();
    await page.goto(q.url ?? "", { waitUntil: "load" });
    return enter(page);
  },

  /** A tab that another one opens with its own page. One process draws both, which makes it cheap. */
  async openAnother(_: Browser, q: Question): Promise<number> {
    const { page } = at(tabs, q.on);
    const opened = page.waitForEvent("popup");
    await page.evaluate(() => void window.open(location.href));
    const other = await opened;
    await other.waitForLoadState("load");
    return enter(other);
  },

  /** Calls a property of window.page and waits for what it resolves to. */
  call(_: Browser, q: Question): Promise<unknown> {
    return at(tabs, q.on).page.evaluate(([name, args]) => {
      const property = (window as unknown as { page: Record<string, (...args: unknown[]) => unknown> }).page[name];
      return property(...args);
    }, [q.name ?? "", q.arguments ?? []] as const);
  },

  /** Closes the tab as its user does. */
  async close(_: Browser, q: Question): Promise<void> {
    await at(tabs, q.on).page.close();
  },

  /** Closes the context with all of its tabs. */
  async closeContext(_: Browser, q: Question): Promise<void> {
    await at(contexts, q.on).close();
  },

  /** Crashes the process that draws the tab, and with it every tab that it draws. */
  async crashTab(_: Browser, q: Question): Promise<void> {
    const { page, crashed } = at(tabs, q.on);
    const crash = async () => (await page.context().newCDPSession(page)).send("Page.crash");
    crash().catch(() => {}); // nobody is left to answer, and the tab may have crashed with another
    await crashed;
  },

  /** Crashes Chromium itself. */
  async crash(browser: Browser): Promise<void> {
    const gone = new Promise<void>((resolve) => browser.once("disconnected", () => resolve()));
    const session = await browser.newBrowserCDPSession();
    session.send("Browser.crash").catch(() => {}); // nobody is left to answer
    await gone;
  },
};

/** Gives a new tab its number. */
function enter(page: Page): number {
  const number = ++lastNumber;
  tabs.set(number, { page, crashed: new Promise((resolve) => page.once("crash", () => resolve())) });
  return number;
}

function at<T>(all: Map<number, T>, number?: number): T {
  const found = all.get(number ?? 0);
  if (found === undefined) throw new Error(`nothing has the number ${number}`);
  return found;
}

async function answer(browser: Browser, q: Question): Promise<void> {
  let line: { id: number; result?: unknown; error?: string };
  try {
    line = { id: q.id, result: await actions[q.do](browser, q) };
  } catch (error) {
    line = { id: q.id, error: error instanceof Error ? error.message : String(error) };
  }
  process.stdout.write(JSON.stringify(line) + "\n");
}

async function main([executablePath, ...args]: string[]): Promise<void> {
  const browser = await chromium.launch({ executablePath, args, chromiumSandbox: process.getuid?.() !== 0 });
  process.stdout.write(JSON.stringify({ id: 0, result: browser.version() }) + "\n");
  for await (const line of readline.createInterface({ input: process.stdin })) {
    void answer(browser, JSON.parse(line) as Question);
  }
  await browser.close();
}

main(process.argv.slice(2)).catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  process.exit(1);
});
