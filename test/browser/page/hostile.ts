// What a page of another origin can try without the gateway's leave. Each function resolves once the browser has done with the
// attempt, and says what the page learned.

/** A fetch of mode "no-cors" with a body of a type that needs no preflight. */
export async function postText(url: string, body: string): Promise<string> {
  return learned(fetch(url, { method: "POST", mode: "no-cors", headers: { "content-type": "text/plain" }, body }));
}

/** A fetch as any script makes it: where its headers need the server's leave, the browser asks first. */
export async function call(url: string, method: string, headers: Record<string, string>, body?: string): Promise<string> {
  return learned(fetch(url, { method, headers, body }));
}

/** The same from a frame that may run scripts and has no origin: browsers call it "null". */
export function callFromNowhere(...args: Parameters<typeof call>): Promise<string> {
  const frame = document.createElement("iframe");
  frame.setAttribute("sandbox", "allow-scripts");
  frame.srcdoc = `<script>
    const [url, method, headers, body] = ${JSON.stringify(args)};
    fetch(url, { method, headers, body }).then((r) => String(r.status), () => "blocked").then((s) => parent.postMessage(s, "*"));
  </script>`;
  return new Promise((resolve) => {
    addEventListener("message", (event) => resolve(String(event.data)), { once: true });
    document.body.append(frame);
  });
}

/** A form, sent to a frame. Forms need nobody's leave. */
export function postForm(url: string, type: string): Promise<string> {
  const frame = document.createElement("iframe");
  frame.name = "target-of-the-form";
  const form = document.createElement("form");
  Object.assign(form, { action: url, method: "post", enctype: type, target: frame.name });
  const field = document.createElement("input");
  Object.assign(field, { type: "hidden", name: "cluster", value: "dev" });
  form.append(field);
  document.body.append(frame, form); // which loads an empty page at once
  return settled(frame, () => form.submit()).finally(() => frame.remove());
}

/** An EventSource, which sends no header of the page's but reads a stream. */
export function eventSource(url: string): Promise<string> {
  const source = new EventSource(url);
  return settled(source).finally(() => source.close());
}

/** A WebSocket, which is bound by no policy of origins but the server's own. */
export function webSocket(url: string): Promise<string> {
  const socket = new WebSocket(url, ["grpc-websockets"]);
  return settled(socket).finally(() => socket.close());
}

/** An element that loads from anywhere: img, script. */
export function element(name: "img" | "script", url: string): Promise<string> {
  const made = document.createElement(name);
  return settled(made, () => {
    made.src = url;
    document.body.append(made);
  });
}

/** Resolves with the type of whichever event tells how the attempt went. */
function settled(target: EventTarget, begin = () => {}): Promise<string> {
  return new Promise((resolve) => {
    for (const type of ["load", "open", "message", "error"]) target.addEventListener(type, () => resolve(type), { once: true });
    begin();
  });
}

async function learned(attempt: Promise<Response>): Promise<string> {
  try {
    const response = await attempt;
    return response.type === "opaque" ? "opaque" : String(response.status);
  } catch (error) {
    return error instanceof TypeError ? "blocked" : String(error);
  }
}
