/* Keeps Gradio's client from losing an event. Once the last event of a session is done, the server ends the stream of
   results, and an event that is sent at that moment comes too late for it. If the client reads the answer to that event
   before the end of the stream, it takes the stream for open and never asks for the results. So the answer is held back
   here until the stream either has ended or tells of the event. */

const EVENT_ID = /"event_id": ?"([^"]+)"/g;
const LONGEST_ID = 200; // characters, with its name: it may be cut between two pieces of the stream

/** A stream of results, as Gradio's client sees it: it aborts a stream once it has read that this one ends. */
class EventStream {
  constructor(signal) {
    this.isOpen = true;
    this.told = new Set();
    this.text = "";
    this.waiting = [];
    signal?.addEventListener("abort", () => this.end());
  }

  /** Return a response of which every piece that is read is listened to. */
  follow(response) {
    const decoder = new TextDecoder();
    const listener = new TransformStream({
      transform: (piece, stream) => {
        stream.enqueue(piece);
        this.listen(decoder.decode(piece, { stream: true }));
      },
      flush: () => this.end(),
    });
    return new Response(response.body.pipeThrough(listener), response);
  }

  listen(piece) {
    const text = this.text + piece;
    for (const [, id] of text.matchAll(EVENT_ID)) this.told.add(id);
    this.text = text.slice(-LONGEST_ID);
    this.wake();
  }

  end() {
    this.isOpen = false;
    this.wake();
  }

  wake() {
    this.waiting.splice(0).forEach((resolve) => resolve());
  }

  /** Wait until the stream has ended or told of an event. */
  async settle(event) {
    while (this.isOpen && !this.told.has(event)) await new Promise((resolve) => this.waiting.push(resolve));
  }
}

/** Return what Gradio's client shall use in place of a fetch. */
export function keepEvents(fetch) {
  let stream;
  return async (input, init) => {
    const { pathname } = new URL(input.url ?? input, location.href);
    if (pathname.endsWith("/queue/data")) {
      const opened = (stream = new EventStream(init?.signal));
      try {
        return opened.follow(await fetch(input, init));
      } catch (error) {
        opened.end();
        throw error;
      }
    }
    const response = await fetch(input, init);
    if (pathname.endsWith("/queue/join") && response.ok) await stream?.settle((await response.clone().json()).event_id);
    return response;
  };
}
